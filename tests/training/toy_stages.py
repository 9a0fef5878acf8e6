"""The toy task under ZeRO 0 to 3, one after the other in one set of processes.

torchrun --nproc_per_node 2 tests/training/toy_stages.py <folder> [key=value ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

from toy import ToyConfig, ToyTask

from mmjepa.config import load_config
from mmjepa.training.engine import run_training
from mmjepa.training.launch import processes


def main(folder: Path, settings: list[str]) -> None:
    with processes(accumulation=1):
        for stage in (0, 1, 2, 3):
            overrides = [f"run={folder / f'zero{stage}'}", f"deepspeed.stage={stage}", *settings]
            config = load_config("toy", ToyConfig, overrides, Path(__file__).parent)
            run_training(config, lambda device, config=config: ToyTask(config))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
