"""Time the data path: clips a second from shards, beside two readers of the same videos as loose files.

    python eval/benchmark_data.py split=data/sprites/motion-test resolution=64 stride=2 [out=data.json]

``raw_decord`` only decodes, in as many processes; ``map_style`` is torch's DataLoader over a plain decord data set. The
readers take turns, ``rounds`` times, so that other work on the machine hits all alike: read the ratios. Processor time
of the workers and of the program itself is less at the mercy of other work than the clock is.
"""

from __future__ import annotations

import os
from importlib.metadata import version

from mmjepa.config import run_program, to_dict
from mmjepa.data.benchmark import DataBenchmarkConfig, measure_data
from mmjepa.evaluation.results import result_path, write_results
from mmjepa.training.benchmark import machine


def main(config: DataBenchmarkConfig) -> None:
    """Time decoding from shards against raw decord and a map-style decord data set, and watch memory."""
    out = None if config.out is None else result_path(config.out)
    speed = measure_data(config)
    for row in speed.readers:
        print(f"{row['reader']:22s} {row['clock']:6.0f} clips/s {row['processor']:6.0f} a processor second")
    for pair, ratio in speed.ratios.items():
        print(f"{pair:38s} {ratio['clock']:5.2f} {ratio['processor']:5.2f}")
    print(
        f"memory over {speed.memory['clips']} clips: {speed.memory['growth']:+.1%} from the second to the last quarter"
    )
    if out is not None:
        facts = {"ratios": speed.ratios, "memory": speed.memory, "load": os.getloadavg(), "av": version("av")}
        write_results(out, "eval/benchmark_data.py", to_dict(config), speed.readers, facts | machine())


if __name__ == "__main__":
    run_program("benchmark_data", DataBenchmarkConfig, main)
