"""FWM: a factorised world model, one slow factor (appearance) and one free factor (dynamics), decorrelated."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmjepa.objectives.base import Objective, Shape, register
from mmjepa.objectives.latents import Latents
from mmjepa.objectives.reductions import Term, global_sum, masked_mean, mean_over_masks, root_mean_square


@register("factorised")
class Factorised(Objective):
    """``static``: mean absolute change in time of appearance channels at valid pairs. ``orthogonal``: mean squared
    covariance between appearance and dynamics channels over all visible tokens (reference specification 3.3).

    Which channels are which is decided by ``factors`` of the objective configuration; the published code cut between
    layers (``factors.split: across_levels``, D3). ``scale_free``: neither term can be lowered by shrinking channels
    (D11). ``static`` becomes the change in units of the channel's spread within clips, ``orthogonal`` a mean squared
    correlation.
    """

    terms = ("static", "orthogonal")

    def __init__(self, shape: Shape, scale_free: bool = False) -> None:
        super().__init__()
        self.factors = shape.factors
        self.scale_free = scale_free

    def forward(self, views: Sequence[Latents]) -> dict[str, Term]:
        return {
            "static": mean_over_masks([self._static(view) for view in views]),
            "orthogonal": mean_over_masks([Term(self._orthogonal(view)) for view in views]),
        }

    def _static(self, view: Latents) -> Term:
        appearance, _ = self.factors.divide(view.scale_free_change if self.scale_free else view.context_change)
        return masked_mean(appearance.abs(), view.valid_pairs)

    def _orthogonal(self, view: Latents) -> Tensor:
        appearance, dynamics = (factor.flatten(0, 1) for factor in self.factors.divide(view.context.float()))
        if self.scale_free:
            appearance, dynamics = (factor / channel_deviation(factor) for factor in (appearance, dynamics))
        return cross_covariance(appearance, dynamics).square().mean()


def channel_deviation(tokens: Tensor) -> Tensor:
    """Standard deviation (C,) of each channel of tokens (n, C) over the rows of all ranks, with its gradient."""
    count = global_sum(torch.tensor(float(len(tokens)), device=tokens.device))
    return root_mean_square(tokens - global_sum(tokens.sum(dim=0)) / count)


def cross_covariance(a: Tensor, b: Tensor) -> Tensor:
    """Unbiased covariance (Ca, Cb) between channels of a (n, Ca) and b (n, Cb) over the rows of all ranks.

    Every rank forms the same matrix; the gradient through the reduction is the global one.
    """
    count = global_sum(torch.tensor(float(len(a)), device=a.device))
    a = a - global_sum(a.sum(dim=0)) / count
    b = b - global_sum(b.sum(dim=0)) / count
    return global_sum(a.T @ b) / (count - 1).clamp(min=1)
