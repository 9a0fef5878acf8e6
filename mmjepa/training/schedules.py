"""Schedules as pure functions of the optimiser step: nothing to save, nothing to replay when a run is resumed."""

from __future__ import annotations

import math

from mmjepa.training.config import EmaConfig, OptimizerConfig


def cosine(start: float, end: float, progress: float) -> float:
    """From ``start`` (progress 0) to ``end`` (progress 1) along half a cosine."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Learning rate of the optimiser step number ``step`` (0-based) of ``steps``.

    Linear from ``start_lr`` to ``lr`` over ``warmup_steps``, then half a cosine that reaches ``final_lr`` at the last
    step.
    """
    if step < config.warmup_steps:
        return config.start_lr + (config.lr - config.start_lr) * step / config.warmup_steps
    last = max(steps - 1 - config.warmup_steps, 1)
    return cosine(config.lr, config.final_lr, (step - config.warmup_steps) / last)


def ema_momentum(config: EmaConfig, step: int, steps: int) -> float:
    """Momentum of the teacher update that follows optimiser step ``step`` (0-based) of ``steps``."""
    return cosine(config.momentum, config.final_momentum, step / max(steps - 1, 1))
