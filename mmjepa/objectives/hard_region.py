"""HW: a second JEPA loss in which tokens with a large error weigh more."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmjepa.errors import UserError
from mmjepa.objectives.base import Objective, Shape, register
from mmjepa.objectives.latents import Latents
from mmjepa.objectives.reductions import SPREAD_FLOOR, Term, mean_over_masks


@register("hard_region")
class HardRegion(Objective):
    """Token errors weighted by their own softmax within the clip (reference specification 3.1), added to the JEPA loss.

    Weights are detached and have mean 1 in each clip. At temperature 1 they are nearly uniform (errors differ by about
    0.1), so this is close to scaling the JEPA loss (D8). ``relative``: the temperature is in units of the standard
    deviation of the clip's errors, so that the weights stay as uneven when errors shrink in training.
    """

    terms = ("hard_region",)

    def __init__(self, shape: Shape, temperature: float = 1.0, relative: bool = False) -> None:
        super().__init__()
        if temperature <= 0:
            raise UserError(f"objective hard_region: temperature must be above 0, not {temperature}")
        self.temperature, self.relative = temperature, relative

    def forward(self, views: Sequence[Latents]) -> dict[str, Term]:
        return {"hard_region": mean_over_masks([self._term(view) for view in views])}

    def _term(self, view: Latents) -> Term:
        view.require_targets("hard_region")
        errors = (view.predicted_target.float() - view.target_at_target).abs().mean(dim=(2, 3))  # B, P
        temperature: float | Tensor = self.temperature
        if self.relative:
            spread = errors.detach().std(dim=1, keepdim=True, correction=0)
            temperature = temperature * spread.clamp(min=SPREAD_FLOOR)
        weights = torch.softmax(errors.detach() / temperature, dim=1) * errors.shape[1]
        return Term((weights * errors).mean())
