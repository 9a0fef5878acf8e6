"""Means over the global batch, whatever the number of ranks.

DeepSpeed averages gradients over ranks. A term that is normalised by data-dependent counts or batch statistics would
then depend on how the batch is split; here counts, maxima and moments are reduced over ranks first, so that the mean
over ranks of every returned value is the value of the global batch, and so is its gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_autograd
from torch import Tensor

SPREAD_FLOOR = 1e-6
"""Of errors that are all alike: their softmax is uniform at any temperature far above their rounding errors."""

DEVIATION_FLOOR = 1e-4
"""Of tokens with values of order one."""


class Term(NamedTuple):
    """A scalar loss term. ``valid`` is the share of masks that had anything to average (None: always all)."""

    value: Tensor
    valid: Tensor | None = None


def world_size() -> int:
    """Ranks of the running process group; 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def global_sum(value: Tensor) -> Tensor:
    """Sum over ranks, differentiable: the backward pass sums the gradients over ranks."""
    if world_size() == 1:
        return value
    return dist_autograd.all_reduce(value) if value.requires_grad else _reduced(value, dist.ReduceOp.SUM)


def global_max(value: Tensor) -> Tensor:
    """Maximum over ranks of a detached tensor."""
    return value if world_size() == 1 else _reduced(value, dist.ReduceOp.MAX)


def root_mean_square(rows: Tensor) -> Tensor:
    """Of rows (n, C...) over the rows of all ranks: (C...), above 0, with its gradient."""
    count = global_sum(torch.tensor(float(len(rows)), device=rows.device))
    # Inside the root: rows that are all zero have no gradient of infinite size.
    return (global_sum(rows.square().sum(dim=0)) / count + DEVIATION_FLOOR**2).sqrt()


def masked_mean(values: Tensor, mask: Tensor) -> Term:
    """Mean of ``values`` (M..., C...) over the True places of ``mask`` (M...) and over all trailing channels."""
    channels = math.prod(values.shape[mask.dim() :])
    count = global_sum(mask.sum().float())
    weight = mask.reshape(mask.shape + (1,) * (values.dim() - mask.dim()))
    total = torch.where(weight, values, values.new_zeros(())).sum()
    return Term(total * world_size() / (count.clamp(min=1) * channels), (count > 0).float())


def softmax_weights(errors: Tensor, mask: Tensor, temperature: float, relative: bool = False) -> Tensor:
    """Weights ``n * softmax(errors / temperature)`` over the True places of the global batch, 0 elsewhere; detached.

    n is their number, so the weights have mean 1 over those places. ``relative``: the temperature is in units of the
    errors' standard deviation over those places.
    """
    errors = errors.detach().float()
    count = global_sum(mask.sum().float())
    unit = _spread(errors, mask, count) if relative else 1.0
    scaled = (errors / (temperature * unit)).masked_fill(~mask, float("-inf"))
    peak = global_max(scaled.max() if scaled.numel() else scaled.new_tensor(float("-inf")))
    # Without a single valid place the peak is -inf; any finite shift then gives the wanted zeros.
    exponents = (scaled - torch.where(peak.isfinite(), peak, torch.zeros_like(peak))).exp()
    return exponents * count / global_sum(exponents.sum()).clamp(min=torch.finfo(torch.float32).tiny)


def _spread(errors: Tensor, mask: Tensor, count: Tensor) -> Tensor:
    """Standard deviation of the errors over the True places of the global batch, above 0."""
    errors = errors.masked_fill(~mask, 0.0)
    mean = global_sum(errors.sum()) / count.clamp(min=1)
    squares = global_sum((errors - mean).masked_fill(~mask, 0.0).square().sum())
    return (squares / count.clamp(min=1)).sqrt().clamp(min=SPREAD_FLOOR)


def mean_over_masks(terms: Sequence[Term]) -> Term:
    """Average over the masks that had something to average (reference specification section 1)."""
    values = torch.stack([term.value for term in terms])
    if terms[0].valid is None:
        return Term(values.mean())
    valid = torch.stack([term.valid for term in terms if term.valid is not None])
    return Term((values * valid).sum() / valid.sum().clamp(min=1), valid.mean())


def _reduced(value: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
    reduced = value.detach().clone()
    dist.all_reduce(reduced, operation)
    return reduced
