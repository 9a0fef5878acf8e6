"""A task of a few hundred parameters: what the engine's tests train, in processes of their own.

python tests/training/toy.py run=... [key=value ...]
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from mmjepa.config import run_program
from mmjepa.training.config import EmaConfig, TrainingConfig
from mmjepa.training.ema import EmaTeacher
from mmjepa.training.engine import run_training
from mmjepa.training.schedules import ema_momentum
from mmjepa.training.task import Layout, Task

FEATURES = 12


@dataclass
class ToyConfig(TrainingConfig):
    """``width`` changes the shape; ``dropout`` draws random numbers; ``bad_at``: steps whose last row gets a NaN."""

    width: int = 16
    dropout: float = 0.0
    bad_at: list[int] = field(default_factory=list)


class ToyTask(Task):
    """Regress a fixed non-linear function, and follow the network with an EMA teacher."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config.precision)
        self.config = config
        self.network = nn.Sequential(
            nn.Linear(FEATURES, config.width), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(config.width, 1)
        )
        self.ema = config.ema or EmaConfig()
        self.teacher = EmaTeacher(self.network)
        self.seen_dtype: torch.dtype | None = None

    def losses(self, batch: tuple[list[str], Tensor, Tensor]) -> dict[str, Tensor]:
        _, inputs, targets = batch
        outputs = self.network(inputs).squeeze(1)
        self.seen_dtype = outputs.dtype
        error = (outputs.float() - targets).square().mean()
        size = self.network[0].weight.square().mean()
        return {"loss": error + 0.1 * size, "error": error, "size": size}

    def batches(self, start_step: int, layout: Layout) -> Iterator[Sequence[tuple[list[str], Tensor, Tensor]]]:
        rows = layout.micro_rows(self.config.batch_size)
        for step in range(start_step, self.config.steps):
            if f"{step} {layout.rank}" == os.environ.get("TOY_SIGNAL_AT"):
                os.kill(os.getpid(), signal.Signals[os.environ["TOY_SIGNAL"]])
            generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
            inputs = torch.randn(self.config.batch_size, FEATURES, generator=generator)
            targets = torch.sin(inputs.sum(dim=1)) + inputs[:, 0]
            if step in self.config.bad_at:
                inputs[-1] = float("nan")
            keys = [f"row-{row}" for row in range(self.config.batch_size)]
            yield [(keys[part], inputs[part], targets[part]) for part in rows]

    def batch_keys(self, batch: tuple[list[str], Tensor, Tensor]) -> list[str]:
        return batch[0]

    def after_step(self, step: int) -> dict[str, float]:
        momentum = ema_momentum(self.ema, step, self.config.steps)
        self.teacher.update(self.network, momentum)
        return {"ema_momentum": momentum, "teacher": float(next(iter(self.teacher.state_dict().values())).sum())}

    def frozen_modules(self) -> list[nn.Module]:
        return [self.teacher.module]

    def extra_state(self) -> dict[str, Tensor]:
        return self.teacher.state_dict()

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        self.teacher.load_state_dict(state)

    def export(self, folder: Path, step: int) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "step.txt").write_text(str(step))


def main(argv: Sequence[str]) -> None:
    def train(config: ToyConfig) -> None:
        run_training(config, lambda device: ToyTask(config).to(device))

    run_program("toy", ToyConfig, train, argv, Path(__file__).parent)


if __name__ == "__main__":
    if os.environ.get("TOY_LATE_RANK") == os.environ.get("RANK", "0"):
        time.sleep(5)
    main(sys.argv[1:])
