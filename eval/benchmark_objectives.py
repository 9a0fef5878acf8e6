"""What every objective costs: its training step over the baseline's, in one run on the same clips and masks.

    python eval/benchmark_objectives.py [model=base] [objectives=[ld]] [out=results/overhead.json]

Prints the median ratio of ``repeats`` pairs of steps per objective, with the lowest and the highest pair.
"""

from __future__ import annotations

from mmjepa.config import run_program, to_dict
from mmjepa.evaluation.results import result_path, write_results
from mmjepa.training.benchmark import machine
from mmjepa.training.overhead import OverheadConfig, measure_overheads


def main(config: OverheadConfig) -> None:
    """Time steps of every objective beside the baseline's."""
    out = None if config.out is None else result_path(config.out)
    rows = []
    for row in measure_overheads(config):
        rows.append(row)
        print("{objective:22s} {ratio:.3f}  ({lowest:.3f} to {highest:.3f})".format(**row), flush=True)
    if out is not None:
        write_results(out, "eval/benchmark_objectives.py", to_dict(config), rows, machine())


if __name__ == "__main__":
    run_program("benchmark_objectives", OverheadConfig, main)
