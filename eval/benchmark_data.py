"""Time the data path: clips a second from shards, beside two readers of the same videos as loose files.

    python eval/benchmark_data.py split=data/sprites/motion-train resolution=64 stride=2 [out=results/data.json]

``raw_decord`` only decodes, in as many processes; ``map_style`` is torch's DataLoader over a plain decord data set. The
readers take turns, ``rounds`` times, so that other work on the machine hits all alike: read the ratios. Processor time
of the workers and of the program itself is less at the mercy of other work than the clock is.
"""

from __future__ import annotations

import json
import sys

from mmjepa.config import run_program
from mmjepa.data.benchmark import DataBenchmarkConfig, measure_data
from mmjepa.evaluation.results import result_path


def main(config: DataBenchmarkConfig) -> None:
    """Time decoding from shards against raw decord and a map-style decord data set, and watch memory."""
    out = None if config.out is None else result_path(config.out)
    figures = measure_data(config) | {"command": f"python {' '.join(sys.argv)}"}
    text = json.dumps(figures, indent=1)
    print(text)
    if out is not None:
        out.write_text(text + "\n")


if __name__ == "__main__":
    run_program("benchmark_data", DataBenchmarkConfig, main)
