"""Time a training step, and our encoder beside the one of HF transformers.

    python eval/benchmark_step.py model=small precision=fp32 batch_size=2 [objective=fwm_hw_ld] [against=transformers]

Prints the median of ``repeats`` steps on random clips, memory, and arithmetic as a share of the matrix peak measured in
the same run. Under ``torchrun`` or ``deepspeed`` it times all ranks together.
"""

from __future__ import annotations

import os

from mmjepa.config import run_program, to_dict
from mmjepa.evaluation.results import result_path, write_results
from mmjepa.training.benchmark import BenchmarkConfig, compare_with_transformers, machine, measure_step


def main(config: BenchmarkConfig) -> None:
    """Time training steps on random clips."""
    out = None if config.out is None else result_path(config.out)
    figures = measure_step(config)
    if os.environ.get("RANK", "0") != "0":
        return
    if config.against is not None:
        figures |= compare_with_transformers(config)
    for name, value in (figures | figures.get("profile", {})).items():
        if name == "profile":
            continue
        print(f"{name:22s} {value:.4g}" if isinstance(value, float) else f"{name:22s} {value}")
    if out is not None:
        write_results(out, "eval/benchmark_step.py", to_dict(config), [figures], machine())


if __name__ == "__main__":
    run_program("benchmark_step", BenchmarkConfig, main)
