"""Time the ways of computing attention on a CPU in bfloat16 by number of tokens.

    python eval/benchmark_attention.py [tokens=[512,1024]] [out=results/benchmark_attention.json]

From where ``blocks`` wins is ``BLOCKED_FROM`` of mmjepa/models/attention.py. The ways take turns: read the ratios.
"""

from __future__ import annotations

from mmjepa.config import run_program, to_dict
from mmjepa.evaluation.results import result_path, write_results
from mmjepa.training.attention_benchmark import AttentionBenchmarkConfig, measure_attention
from mmjepa.training.benchmark import machine


def main(config: AttentionBenchmarkConfig) -> None:
    """Time attention by length: written out, torch's fused kernel, in blocks."""
    out = None if config.out is None else result_path(config.out)
    rows = measure_attention(config)
    print(f"{'tokens':>7s} {'way':12s} {'forward ms':>11s} {'with backward':>14s} {'ratio':>6s}")
    for row in rows:
        print(
            f"{row['tokens']:7d} {row['way']:12s} {row['forward_ms']:11.1f} {row['forward_backward_ms']:14.1f} "
            f"{row['ratio_to_written_out']:6.2f}"
        )
    if out is not None:
        write_results(out, "eval/benchmark_attention.py", to_dict(config), rows, machine())


if __name__ == "__main__":
    run_program("benchmark_attention", AttentionBenchmarkConfig, main)
