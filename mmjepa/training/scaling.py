"""How a pretraining run would scale over GPUs, computed from its configuration and a cluster's figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from mmjepa.errors import UserError
from mmjepa.training.config import GATHERED_AT_MOST, DeepSpeedConfig
from mmjepa.training.cost import FP32, Parameters, clip_flops, repeated_flops
from mmjepa.training.plan import expected_masks
from mmjepa.training.pretrain import PretrainParts
from mmjepa.training.program import PretrainConfig

BACKWARD_SHARE = 2 / 3
"""Part of a step's computing that is the backward pass, behind which reductions can hide."""


@dataclass
class ClusterConfig:
    """Assumptions about the machines, in configs/scaling.yaml: none of them is measured here.

    gpu_peak_tflops: of matrix products in the training's precision. achieved_share: of that peak, over a whole step.
    gpus_per_node; inside_node_gbytes, between_nodes_gbytes: GB/s that a ring of all GPUs moves inside a node, and out
    of a node. hop_microseconds: what a ring's step takes beside its bytes. hidden_share: of the backward pass, behind
    which communication is free with ``deepspeed.overlap_comm``. decoded_clips_per_core: a second. cores_per_gpu: that
    decode. clip_megabytes: of encoded video per clip. storage_gbytes: GB/s that storage gives all nodes together.
    """

    gpu_peak_tflops: float = MISSING
    achieved_share: float = MISSING
    gpus_per_node: int = MISSING
    inside_node_gbytes: float = MISSING
    between_nodes_gbytes: float = MISSING
    hop_microseconds: float = MISSING
    hidden_share: float = MISSING
    decoded_clips_per_core: float = MISSING
    cores_per_gpu: int = MISSING
    clip_megabytes: float = MISSING
    storage_gbytes: float = MISSING

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name not in ("hop_microseconds", "hidden_share") and not value > 0:
                raise UserError(f"cluster.{name} must be above 0, not {value}")
        if self.achieved_share > 1 or not 0 <= self.hidden_share <= 1 or self.hop_microseconds < 0:
            raise UserError("cluster: shares lie in [0, 1], and hop_microseconds is not negative")


@dataclass
class ScalingConfig(PretrainConfig):
    """A training configuration (of which model, masking, objective, ema and ZeRO stage count) on ``cluster``.

    gpus: numbers of GPUs to tell about. clips_per_gpu: in a step. out: .json file (null: print only).
    """

    cluster: ClusterConfig | None = None
    gpus: list[int] = field(default_factory=list)
    clips_per_gpu: int = 16
    out: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cluster is None:
            raise UserError("scaling needs the group cluster")
        if not self.gpus or min(*self.gpus, self.clips_per_gpu) < 1:
            raise UserError("gpus must be a list, and it and clips_per_gpu at least 1")


@dataclass(frozen=True)
class Work:
    """What every GPU does in a step: FLOPs, and the numbers of parameters trained and held by the teacher."""

    flops: float
    trained: int
    teacher: int
    clips: int

    @classmethod
    def of(cls, config: ScalingConfig) -> Work:
        """From the configuration, with index lists of their mean lengths."""
        parts = PretrainParts(**config.parts())
        model, parameters = parts.model, Parameters.of(parts.model, parts.objective)
        group = parts.masking.group_size(config.clips_per_gpu, config.clips_per_gpu)
        masks = expected_masks(model, parts.masking, group, config.seed)
        stop_gradient = parts.objective.stop_gradient
        flops = clip_flops(model, parameters.heads, model.grid(), masks, stop_gradient)
        flops += repeated_flops(model, model.grid(), masks, stop_gradient)
        return cls(
            config.clips_per_gpu * flops,
            parameters.trained,
            parameters.encoder if config.ema else 0,
            config.clips_per_gpu,
        )


def volume(work: Work, settings: DeepSpeedConfig) -> float:
    """Bytes that ring collectives of a step pass along, times n / (n - 1), per GPU of n.

    Gradients and parameters are fp32 (see ``Task.forward``). An all-reduce is a reduce-scatter and an all-gather, and
    stages 1 and 2 do just these two. Stage 3 gathers parameters and the teacher's for a step, and parameters once more
    for the backward pass where there are more than it keeps whole (``GATHERED_AT_MOST``).
    """
    if settings.stage != 3:
        return 2.0 * work.trained * FP32
    gathers = 1.0 if work.trained + work.teacher <= GATHERED_AT_MOST else 2.0
    return ((1.0 + gathers) * work.trained + work.teacher) * FP32


def simulate(work: Work, settings: DeepSpeedConfig, cluster: ClusterConfig, gpus: int) -> dict[str, Any]:
    """One step on ``gpus`` GPUs: seconds by part, clips a second, and those against ``gpus`` times one GPU's."""
    step, parts = _step(work, settings, cluster, gpus)
    alone, _ = _step(work, settings, cluster, 1)
    return {
        "gpus": gpus,
        **parts,
        "step_s": step,
        "clips_per_s": gpus * work.clips / step,
        "efficiency": alone / step,
        "bound": "data" if parts["data_s"] > parts["compute_s"] + parts["exposed_s"] else "step",
    }


def _step(work: Work, settings: DeepSpeedConfig, cluster: ClusterConfig, gpus: int) -> tuple[float, dict[str, float]]:
    compute = work.flops / (cluster.gpu_peak_tflops * 1e12 * cluster.achieved_share)
    # A ring is as slow as its slowest link; over several nodes it leaves each of them once.
    inside = cluster.inside_node_gbytes
    link = inside if gpus <= cluster.gpus_per_node else min(inside, cluster.between_nodes_gbytes)
    moved = volume(work, settings)
    passes = 3 if settings.stage == 3 else 2
    reduce = moved * (gpus - 1) / gpus / (link * 1e9) + passes * (gpus - 1) * cluster.hop_microseconds * 1e-6
    hidden = cluster.hidden_share * BACKWARD_SHARE * compute if settings.overlap_comm else 0.0
    exposed = max(0.0, reduce - hidden)
    decode = work.clips / (cluster.decoded_clips_per_core * cluster.cores_per_gpu)
    read = gpus * work.clips * cluster.clip_megabytes / (cluster.storage_gbytes * 1e3)
    data = max(decode, read)  # workers read and decode ahead, while the step before computes
    parts = {"compute_s": compute, "communication_s": reduce, "exposed_s": exposed, "decode_s": decode, "read_s": read}
    return max(compute + exposed, data), {**parts, "data_s": data}


def scaling_table(config: ScalingConfig) -> Iterator[dict[str, Any]]:
    """A row of :func:`simulate` for every number of GPUs."""
    assert config.cluster is not None
    work, cluster = Work.of(config), config.cluster
    return (simulate(work, config.deepspeed, cluster, gpus) for gpus in config.gpus)
