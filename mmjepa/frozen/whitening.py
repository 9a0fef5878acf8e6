"""Statistics of frozen tokens, and the linear map that makes all their directions equally large for a readout."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

FLOOR = 1e-6
"""Channels that deviate less than this share of the most deviating one are noise of float32: left out."""
FLOAT16_STEPS = 4 * 2.0**-10
"""As are those that deviate by less than four steps of float16, in which features are stored, at their own size. A
channel that training has silenced is a constant: its rounding, brought to unit size, would be most of what a readout
fitted on stored features sees, and gone when the same encoder runs live."""


def token_moments(blocks: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean per position (T', S, D) and covariance of the rest (D, D) of tokens (b, T', S, D), in float64, in one pass.

    The mean is taken per *position*: in self-supervised encoders most variance is positional and common to all clips,
    and what is common to all clips says nothing about any of them.
    """
    first: Tensor | None = None
    count = 0
    for block in blocks:
        if first is None:  # moments are taken about it, so that float32 products lose nothing to a large mean
            first = block.float().mean(dim=0)
            total = torch.zeros_like(first, dtype=torch.float64)
            products = torch.zeros(first.shape[-1], first.shape[-1], dtype=torch.float64, device=first.device)
        shifted = block.float() - first
        total += shifted.sum(dim=0, dtype=torch.float64)
        flat = shifted.flatten(0, -2)
        products += (flat.T @ flat).double()
        count += len(block)
    if first is None:
        raise ValueError("no tokens")
    mean = total / count
    flat_mean = mean.flatten(0, -2)
    covariance = (products / count - flat_mean.T @ flat_mean) / len(flat_mean)
    return mean + first, (covariance + covariance.T) / 2  # symmetric to the last digit


def whitening(mean: Tensor, covariance: Tensor, shrinkage: float | None) -> Tensor:
    """Map W (D, D) that takes deviations from ``mean`` (T', S, D) with this covariance (D, D) to ``deviations @ W``, of
    nearly equal directions.

    Channels are first brought to unit size; constant ones (:data:`FLOAT16_STEPS`) become 0. The principal variances v
    of their correlations are then divided out, as far as they stand above ``shrinkage``: a direction is scaled by
    ((1 + s) / (v + s)) ** 0.5. Without shrinkage (None) nothing is whitened: channels are brought to unit size, and
    that is all.
    """
    deviation = covariance.double().diagonal().clamp(min=0).sqrt()
    size = mean.double().square().flatten(0, -2).mean(dim=0).sqrt()
    alive = (deviation > deviation.max() * FLOOR) & (deviation > size * FLOAT16_STEPS)
    scale = torch.where(alive, 1 / deviation, 0.0)
    if shrinkage is None:
        return scale.diag()
    variances, directions = torch.linalg.eigh(covariance.double() * scale[:, None] * scale)
    gain = ((1 + shrinkage) / (variances.clamp(min=0) + shrinkage)).sqrt()
    return scale[:, None] * (directions * gain) @ directions.T
