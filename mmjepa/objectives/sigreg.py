"""SIGReg: student tokens should look like an isotropic Gaussian in every random direction (LeJEPA)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmjepa.errors import UserError
from mmjepa.objectives.base import SEMANTICS, Objective, Shape, check_choice, register
from mmjepa.objectives.latents import Latents
from mmjepa.objectives.reductions import Term, global_sum

INTEGRATION_END = 3.0
INTEGRATION_POINTS = 17


@register("sigreg")
class SIGReg(Objective):
    """Mean Epps-Pulley statistic over random unit projections of all context tokens (specification 3.12).

    ``corrected`` leaves the statistic's factor (number of samples) out, so that the weight does not depend on the batch
    (D15); ``reference`` keeps it. Directions are new each step and equal on all ranks.
    """

    terms = ("sigreg",)
    draws: Tensor

    def __init__(self, shape: Shape, slices: int = 1024, semantics: str = "corrected") -> None:
        super().__init__()
        if slices < 1:
            raise UserError(f"objective sigreg: slices must be at least 1, not {slices}")
        self.slices = slices
        self.semantics = check_choice("objective sigreg: semantics", semantics, SEMANTICS)
        self.register_buffer("draws", torch.zeros((), dtype=torch.long))  # saved, so that resume repeats no directions

    def forward(self, views: Sequence[Latents]) -> dict[str, Term]:
        tokens = torch.cat([view.context.float().flatten(0, 1).flatten(1) for view in views])
        statistic = epps_pulley(tokens @ self._directions(tokens))
        if self.semantics == "corrected":
            statistic = statistic / global_sum(torch.tensor(float(len(tokens)), device=tokens.device))
        return {"sigreg": Term(statistic.mean())}

    def _directions(self, tokens: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(int(self.draws))
        self.draws += 1
        directions = torch.randn(tokens.shape[1], self.slices, generator=generator)
        return (directions / directions.norm(dim=0)).to(tokens.device)


def epps_pulley(samples: Tensor) -> Tensor:
    """Epps-Pulley distance to N(0, 1) of each column of ``samples`` (n, S) over the samples of all ranks: (S,).

    Squared distance of characteristic functions under a Gaussian window, by the trapezoid rule, times n. The integrand
    is even, so only t >= 0 is sampled and interior points count twice.
    """
    t = torch.linspace(0, INTEGRATION_END, INTEGRATION_POINTS, device=samples.device)
    gaussian = torch.exp(-t.square() / 2)
    step = INTEGRATION_END / (INTEGRATION_POINTS - 1)
    weights = torch.full_like(t, 2 * step)
    weights[[0, -1]] = step
    angles = samples[..., None] * t  # n, S, points
    count = global_sum(torch.tensor(float(len(samples)), device=samples.device))
    cos = global_sum(angles.cos().sum(dim=0)) / count
    sin = global_sum(angles.sin().sum(dim=0)) / count
    distance = (cos - gaussian).square() + sin.square()
    return (distance * gaussian * weights).sum(dim=-1) * count
