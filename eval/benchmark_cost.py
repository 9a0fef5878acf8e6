"""Table of a step's time, memory and FLOPs over tokens per clip, batch and model size, beside the cost model.

    python eval/benchmark_cost.py [models=[small,tiny]] [precision=fp32] [out=results/benchmark_cost.json]

Every row is measured in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

from mmjepa.config import run_program, to_dict
from mmjepa.evaluation.results import result_path, write_results
from mmjepa.training.benchmark import machine
from mmjepa.training.cost_benchmark import CostBenchmarkConfig, measure_cost

HEAD = (
    f"{'model':8s} {'tokens':>6s} {'batch':>5s} {'s/step':>8s} {'GiB':>6s} {'predicted':>9s} {'GFLOP counted':>13s} "
    f"{'predicted':>9s} {'ratio':>6s} {'of peak':>7s}"
)


def main(config: CostBenchmarkConfig) -> None:
    """Measure how a step's cost grows, beside what the cost model predicts."""
    out = None if config.out is None else result_path(config.out)
    print(HEAD)
    rows = []
    for row in measure_cost(config):
        print(
            f"{row['model']:8s} {row['tokens_per_clip']:6d} {row['batch_size']:5d} {row['seconds_per_step']:8.3f} "
            f"{row['memory_gib']:6.2f} {row['predicted_memory_gib']:9.2f} {row['counted_gflop']:13.1f} "
            f"{row['predicted_gflop']:9.1f} {row['predicted_to_counted']:6.3f} {row['share_of_peak']:7.1%}",
            flush=True,
        )
        rows.append(row)
    if out is not None:
        write_results(out, "eval/benchmark_cost.py", to_dict(config), rows, machine())


if __name__ == "__main__":
    run_program("benchmark_cost", CostBenchmarkConfig, main)
