"""Velocity gate: temporal smoothness, but only where the target itself moves slowly."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mmjepa.errors import UserError
from mmjepa.objectives.base import Objective, Shape, register
from mmjepa.objectives.latents import Latents
from mmjepa.objectives.reductions import Term, masked_mean, mean_over_masks


@register("velocity_gate")
class VelocityGate(Objective):
    """Mean absolute change of student tokens at valid pairs, zero where the target's speed exceeds the ``percentile``
    of its step (specification 3.14). Gated-out pairs stay in the mean."""

    terms = ("velocity_gate",)

    def __init__(self, shape: Shape, percentile: float = 0.5) -> None:
        super().__init__()
        if not 0 < percentile < 1:
            raise UserError(f"objective velocity_gate: percentile must lie in (0, 1), not {percentile}")
        self.percentile = percentile

    def forward(self, views: Sequence[Latents]) -> dict[str, Term]:
        return {"velocity_gate": mean_over_masks([self._term(view) for view in views])}

    def _term(self, view: Latents) -> Term:
        speed = view.clip.target_speed.detach()
        if speed.shape[1] == 0:
            return masked_mean(view.context_change.abs(), view.valid_pairs)
        slow = speed <= torch.quantile(speed, self.percentile, dim=-1, keepdim=True)
        return masked_mean(slow[..., None, None] * view.context_change.abs(), view.valid_pairs)
