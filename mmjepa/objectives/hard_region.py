"""HW: a second JEPA loss in which tokens with a large error weigh more."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mmjepa.errors import UserError
from mmjepa.objectives.base import Objective, Shape, register
from mmjepa.objectives.latents import Latents
from mmjepa.objectives.reductions import Term, mean_over_masks


@register("hard_region")
class HardRegion(Objective):
    """Token errors weighted by their own softmax within the clip (reference specification 3.1), added to the JEPA loss.

    Weights are detached and have mean 1 in each clip. At temperature 1 they are nearly uniform (errors differ by about
    0.1), so this is close to scaling the JEPA loss; a temperature near the errors' spread is needed to matter.
    """

    terms = ("hard_region",)

    def __init__(self, shape: Shape, temperature: float = 1.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise UserError(f"objective hard_region: temperature must be above 0, not {temperature}")
        self.temperature = temperature

    def forward(self, views: Sequence[Latents]) -> dict[str, Term]:
        return {"hard_region": mean_over_masks([self._term(view) for view in views])}

    def _term(self, view: Latents) -> Term:
        errors = (view.predicted_target.float() - view.target_at_target).abs().mean(dim=(2, 3))  # B, P
        weights = torch.softmax(errors.detach() / self.temperature, dim=1) * errors.shape[1]
        return Term((weights * errors).mean())
