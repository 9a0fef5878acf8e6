"""The JEPA loss: regress the target encoder's tokens at hidden and, ramped in, at visible places."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmjepa.errors import UserError
from mmjepa.models import TokenGrid
from mmjepa.objectives.base import Objective, Shape, register
from mmjepa.objectives.latents import Latents
from mmjepa.objectives.reductions import Term, mean_over_masks


@register("jepa")
class JEPA(Objective):
    """Mean of ``|prediction - target| ** exponent / exponent`` (reference specification 2.5).

    ``predict``: over target tokens. ``context``: over context tokens, each divided by the square root of its distance
    to the nearest target token, so that tokens at the border of a hole count most (``distance_weighted``).
    """

    terms = ("predict", "context")

    def __init__(self, shape: Shape, exponent: float = 1.0, distance_weighted: bool = True) -> None:
        super().__init__()
        if exponent < 1:
            raise UserError(f"objective jepa: exponent must be at least 1, not {exponent}")
        self.exponent = exponent
        self.distance_weighted = distance_weighted

    def forward(self, views: Sequence[Latents]) -> dict[str, Term]:
        for view in views:
            view.require_targets("jepa")
        return {
            "predict": mean_over_masks([Term(self._predict(view)) for view in views]),
            "context": mean_over_masks([Term(self._context(view)) for view in views]),
        }

    def _error(self, prediction: Tensor, target: Tensor) -> Tensor:
        difference = (prediction.float() - target).abs()
        return difference if self.exponent == 1 else difference**self.exponent / self.exponent

    def _predict(self, view: Latents) -> Tensor:
        return self._error(view.predicted_target, view.target_at_target).mean()

    def _context(self, view: Latents) -> Tensor:
        error = self._error(view.predicted_context, view.target_at_context).mean(dim=(2, 3))
        if self.distance_weighted:
            error = error / context_distance(view.context_index, view.target_index, view.grid).sqrt()
        return error.mean()


def context_distance(context_index: Tensor, target_index: Tensor, grid: TokenGrid) -> Tensor:
    """Distance in cells (B, K) from each context token to its clip's nearest target token, all axes alike."""
    context, target = (_coordinates(index, grid) for index in (context_index, target_index))
    return torch.cdist(context, target, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=2)


def _coordinates(index: Tensor, grid: TokenGrid) -> Tensor:
    """Flat indices (B, K) -> (B, K, 3) float cell coordinates (t, y, x)."""
    row = index // grid.width
    return torch.stack([row // grid.height, row % grid.height, index % grid.width], dim=-1).float()
