"""Velocity gate: temporal smoothness, but only where the target itself moves slowly."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mmjepa.errors import UserError
from mmjepa.objectives.base import SEMANTICS, Objective, Shape, check_choice, register
from mmjepa.objectives.latents import Latents
from mmjepa.objectives.reductions import Term, masked_mean, mean_over_masks


@register("velocity_gate")
class VelocityGate(Objective):
    """Mean absolute change of student tokens at valid pairs whose target moves slowly (specification 3.14).

    Slow is at most the ``percentile`` of the target's speed over the step. ``corrected``: over the step's valid pairs,
    and the mean is of slow pairs. ``reference``: over all places, visible or not, and pairs that the gate shuts out
    stay in the mean as zeros (D32). ``scale_free``: changes are in units of each channel's spread within clips (D11).
    """

    terms = ("velocity_gate",)

    def __init__(
        self, shape: Shape, percentile: float = 0.5, scale_free: bool = False, semantics: str = "corrected"
    ) -> None:
        super().__init__()
        if not 0 < percentile < 1:
            raise UserError(f"objective velocity_gate: percentile must lie in (0, 1), not {percentile}")
        self.percentile, self.scale_free = percentile, scale_free
        self.semantics = check_choice("objective velocity_gate: semantics", semantics, SEMANTICS)

    def forward(self, views: Sequence[Latents]) -> dict[str, Term]:
        return {"velocity_gate": mean_over_masks([self._term(view) for view in views])}

    def _term(self, view: Latents) -> Term:
        change = (view.scale_free_change if self.scale_free else view.context_change).abs()
        speed = view.clip.target_speed.detach()
        if speed.shape[1] == 0:
            return masked_mean(change, view.valid_pairs)
        if self.semantics == "reference":
            slow = speed <= torch.quantile(speed, self.percentile, dim=-1, keepdim=True)
            return masked_mean(slow[..., None, None] * change, view.valid_pairs)
        speed = speed.masked_fill(~view.valid_pairs, torch.nan)  # never slow: no comparison with NaN holds
        slow = speed <= torch.nanquantile(speed, self.percentile, dim=-1, keepdim=True)
        return masked_mean(change, slow)
