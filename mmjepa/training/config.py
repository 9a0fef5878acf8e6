"""Settings of the training engine: everything that is the same for every task."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from omegaconf import MISSING

from mmjepa.errors import UserError
from mmjepa.precision import fastest_precision

RUNTIME_KEYS = (
    *("run", "dry_run", "accumulation", "model.recompute"),
    *("data.root", "data.workers", "data.prefetch", "data.cache", "data.cache_gigabytes", "data.decoder"),
    *("align.features", "text.cache"),
)
RUNTIME_GROUPS = ("log", "checkpoint", "health", "nonfinite", "deepspeed")
"""Settings that may change when a run is continued: they alter neither the loss at a step nor what is saved in the end
(``data.root`` may be another place of the same data: their fingerprints are compared; decoders give the same frames, if
not of damaged files). ``accumulation`` and
``deepspeed`` are here for another number of GPUs: they alter the loss as that does, by rounding, and in terms over
batch statistics."""
GATHERED_AT_MOST = 1_000_000_000
"""Parameters that ZeRO-3 keeps whole at a time: those of smaller models from their first use in a step to its end."""


@dataclass
class OptimizerConfig:
    """AdamW, its learning-rate schedule (linear warm-up, then half a cosine) and the clipping of gradients."""

    lr: float = 1e-3
    start_lr: float = 1e-5
    final_lr: float = 1e-5
    warmup_steps: int = 100
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    max_grad_norm: float | None = 1.0  # None: gradients are not clipped

    def __post_init__(self) -> None:
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and self.eps > 0):
            raise UserError("optimizer: beta1 and beta2 must lie in [0, 1), eps must be above 0")
        if not all(0 <= rate < math.inf for rate in (self.lr, self.start_lr, self.final_lr)) or self.warmup_steps < 0:
            raise UserError("optimizer: rates and warmup_steps must be finite and not negative")
        if self.weight_decay < 0:
            raise UserError(f"optimizer: weight_decay must not be negative, not {self.weight_decay}")
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise UserError("optimizer: max_grad_norm must be above 0, or null for no clipping")


@dataclass
class EmaConfig:
    """Momentum of the teacher's moving average, moved from ``momentum`` to ``final_momentum`` by half a cosine."""

    momentum: float = 0.996
    final_momentum: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.momentum <= self.final_momentum <= 1:
            raise UserError("ema: needs 0 <= momentum <= final_momentum <= 1")


@dataclass
class DeepSpeedConfig:
    """What is handed to DeepSpeed: the ZeRO stage and its communication buckets (elements).

    ``stage`` null: 1 on several ranks, and 0 on one, where nothing is shared out and stage 1 would only copy.
    """

    stage: int | None = None
    overlap_comm: bool = False
    reduce_bucket_size: int = 500_000_000
    allgather_bucket_size: int = 500_000_000

    def __post_init__(self) -> None:
        if self.stage not in (None, 0, 1, 2, 3):
            raise UserError(f"deepspeed: no ZeRO stage {self.stage} (0 to 3, or null)")

    def stage_on(self, ranks: int) -> int:
        """The ZeRO stage on so many ranks."""
        if self.stage is None:
            return 1 if ranks > 1 else 0
        return self.stage


@dataclass
class CheckpointConfig:
    """A checkpoint ``every`` so many optimiser steps and after the last one.

    The newest ``keep_last`` stay on disk, and with ``keep_every`` all whose step is a multiple of it.
    """

    every: int = 500
    keep_last: int = 2
    keep_every: int | None = None

    def __post_init__(self) -> None:
        if self.every < 1 or self.keep_last < 1:
            raise UserError("checkpoint: every and keep_last must be at least 1")
        if self.keep_every is not None and (self.keep_every < 1 or self.keep_every % self.every):
            raise UserError(
                f"checkpoint: keep_every={self.keep_every} must be null or a multiple of every={self.every}, "
                "or there is nothing to keep"
            )


@dataclass
class NonFiniteConfig:
    """Steps with a loss or gradient that is not finite are skipped, at most ``skips`` of them in a whole run."""

    skips: int = 3

    def __post_init__(self) -> None:
        if self.skips < 0:
            raise UserError("nonfinite: skips must not be negative")


@dataclass
class LogConfig:
    """How often (optimiser steps) a row of metrics is written."""

    every: int = 20

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UserError("log: every must be at least 1")


@dataclass
class HealthConfig:
    """Collapse health: measured ``every`` so many steps on ``clips`` fixed clips; below a floor the log says so."""

    every: int = 200
    clips: int = 64
    rankme_floor: float = 0.05
    channel_std_floor: float = 0.05
    between_clip_floor: float = 0.02

    def __post_init__(self) -> None:
        if self.every < 1 or self.clips < 2:
            raise UserError("health: every must be at least 1 and clips at least 2")


@dataclass
class TrainingConfig:
    """The engine's part of ``configs/train.yaml``. ``batch_size`` counts clips per optimiser step over all ranks."""

    run: str = MISSING
    seed: int = 0
    steps: int = 1000
    batch_size: int = 64
    accumulation: int = 1
    precision: str = "auto"
    compile: bool = False
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema: EmaConfig | None = None
    deepspeed: DeepSpeedConfig = field(default_factory=DeepSpeedConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    nonfinite: NonFiniteConfig = field(default_factory=NonFiniteConfig)
    log: LogConfig = field(default_factory=LogConfig)
    health: HealthConfig = field(default_factory=HealthConfig)

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "bf16", "fp32"):
            raise UserError(f"precision '{self.precision}' is not known (auto, bf16 or fp32)")
        if self.precision == "auto":  # resolved here, so that a run's saved configuration says what it was trained in
            self.precision = fastest_precision()
        if self.compile and self.deepspeed.stage == 3:
            raise UserError("compile=true does not go with deepspeed.stage=3, which gathers parameters by hooks")
        if not self.run.strip() or self.seed < 0:
            raise UserError(f"run='{self.run}', seed={self.seed}: run must name a folder, seed must not be negative")
        if self.steps < 1 or self.batch_size < 1 or self.accumulation < 1:
            raise UserError("steps, batch_size and accumulation must be at least 1")
        if self.optimizer.warmup_steps >= self.steps:
            raise UserError(
                f"optimizer.warmup_steps={self.optimizer.warmup_steps} leaves nothing of the {self.steps} steps"
            )
