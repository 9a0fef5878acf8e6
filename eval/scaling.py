"""A pretraining run on 8 to 512 GPUs, by simulation: computing, collectives, reading and decoding.

    python eval/scaling.py model=large data.resolution=224 deepspeed=zero2 precision=bf16 [cluster.KEY=VALUE ...]

Nothing is measured: the cost model's FLOPs and bytes over the figures under ``cluster``, which are printed with the
table.
"""

from __future__ import annotations

from mmjepa.config import run_program, to_dict
from mmjepa.evaluation.results import result_path, write_results
from mmjepa.training.scaling import ScalingConfig, scaling_table

COLUMNS = ("compute_s", "communication_s", "exposed_s", "decode_s", "read_s", "step_s")


def main(config: ScalingConfig) -> None:
    """Tell how a run would scale over GPUs, under stated assumptions."""
    out = None if config.out is None else result_path(config.out)
    rows = list(scaling_table(config))
    size = config.model.name if config.model else ""
    print(
        f"{size}, ZeRO-{config.deepspeed.stage}, {config.clips_per_gpu} clips a GPU and step; a simulation that assumes"
    )
    for name, value in to_dict(config.cluster).items():
        print(f"  {name:24s} {value:g}")
    print(f"{'gpus':>5s} " + " ".join(f"{name:>15s}" for name in COLUMNS) + "     clips/s  efficiency  bound")
    for row in rows:
        times = " ".join(f"{row[name]:15.4f}" for name in COLUMNS)
        print(f"{row['gpus']:5d} {times} {row['clips_per_s']:11,.0f} {row['efficiency']:11.3f}  {row['bound']}")
    if out is not None:
        write_results(out, "eval/scaling.py", to_dict(config), rows, {})


if __name__ == "__main__":
    run_program("scaling", ScalingConfig, main)
