"""Delta, LTC and spectral: the student's tokens should change in time as the target's do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from mmjepa.objectives.base import Objective, Shape, register
from mmjepa.objectives.latents import Latents
from mmjepa.objectives.reductions import Term, masked_mean, mean_over_masks

SPECTRAL_MIN_STEPS = 4
SPECTRAL_RANGE = (0.1, 1.0)


@register("delta")
class Delta(Objective):
    """L1 between the student's and the target's change to the next step at valid pairs (specification 3.2)."""

    terms = ("delta",)

    def __init__(self, shape: Shape) -> None:
        super().__init__()

    def forward(self, views: Sequence[Latents]) -> dict[str, Term]:
        return {"delta": mean_over_masks([self._term(view) for view in views])}

    def _term(self, view: Latents) -> Term:
        return masked_mean((view.context_change - view.clip.target_change.detach()).abs(), view.valid_pairs)


@register("temporal_contrast")
class TemporalContrast(Objective):
    """LTC: the student's token is nearer, by a cosine margin, to the target at t than at t+1 (specification 3.5)."""

    terms = ("temporal_contrast",)

    def __init__(self, shape: Shape, margin: float = 0.5) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, views: Sequence[Latents]) -> dict[str, Term]:
        return {"temporal_contrast": mean_over_masks([self._term(view) for view in views])}

    def _term(self, view: Latents) -> Term:
        student = view.context_grid[:, :-1].flatten(-2)
        target = view.clip.target_grid.detach().flatten(-2)
        same = F.cosine_similarity(student, target[:, :-1], dim=-1)
        later = F.cosine_similarity(student, target[:, 1:], dim=-1)
        return masked_mean(F.relu(self.margin - same + later), view.valid_pairs)


@register("spectral")
class Spectral(Objective):
    """Modulus of the difference of temporal spectra at places visible at all steps (specification 3.6).

    Frequencies weigh from 0.1 (constant part) to 1 (fastest), linearly.
    """

    terms = ("spectral",)

    def __init__(self, shape: Shape) -> None:
        super().__init__()

    def forward(self, views: Sequence[Latents]) -> dict[str, Term]:
        return {"spectral": mean_over_masks([self._term(view) for view in views])}

    def _term(self, view: Latents) -> Term:
        tubes = view.visible.all(dim=1)  # B, S
        if view.grid.steps < SPECTRAL_MIN_STEPS:
            tubes = torch.zeros_like(tubes)
        student = torch.fft.rfft(view.context_grid, dim=1)
        target = view.clip.target_spectrum.detach()
        weights = torch.linspace(*SPECTRAL_RANGE, student.shape[1], device=tubes.device)
        # The modulus has no gradient at 0, where hidden tubes lie: keep them away from it.
        difference = torch.where(tubes[:, None, :, None, None], student - target, torch.ones_like(target))
        weighted = difference.abs() * weights[None, :, None, None, None]
        return masked_mean(weighted.movedim(1, -1), tubes)
