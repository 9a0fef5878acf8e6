"""Hamiltonian: the two factors evolve as position and momentum of a learnt energy towards the next step's target."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmjepa.errors import UserError
from mmjepa.objectives.base import Objective, Shape, register
from mmjepa.objectives.latents import Latents
from mmjepa.objectives.reductions import Term, masked_mean, mean_over_masks


@register("hamiltonian")
class Hamiltonian(Objective):
    """L1 of positions plus L1 of momenta after one step of size ``dt``, at valid pairs (specification 3.13).

    The energy is an MLP over both halves; gradients through its gradient (second order) are kept. As published, except
    that the halves are the factors of every level and not early and late layers (D3); with the published ``dt`` a step
    changes little, and the term is close to a copy of the token onto the next target (D14).
    """

    terms = ("hamiltonian",)

    def __init__(self, shape: Shape, hidden: int = 256, dt: float = 0.1) -> None:
        super().__init__()
        if hidden < 1:
            raise UserError(f"objective hamiltonian: hidden must be at least 1, not {hidden}")
        if 2 * shape.factors.dynamics_channels(shape.levels, shape.width) != shape.levels * shape.width:
            raise UserError("objective hamiltonian: position and momentum need factors.appearance_share=0.5")
        self.dt = dt
        self.factors = shape.factors
        width = shape.levels * shape.width
        self.energy = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 1)
        )

    def forward(self, views: Sequence[Latents]) -> dict[str, Term]:
        return {"hamiltonian": mean_over_masks([self._term(view) for view in views])}

    def _term(self, view: Latents) -> Term:
        position, momentum = self._evolve(*self.factors.divide(view.context_grid[:, :-1]))
        next_position, next_momentum = self.factors.divide(view.clip.target_grid[:, 1:].detach())
        first = masked_mean((position - next_position).abs(), view.valid_pairs)
        second = masked_mean((momentum - next_momentum).abs(), view.valid_pairs)
        return Term(first.value + second.value, first.valid)

    def _evolve(self, position: Tensor, momentum: Tensor) -> tuple[Tensor, Tensor]:
        """One leapfrog-like step; double backward needs float32, so autocast is off inside."""
        with torch.autocast(position.device.type, enabled=False), torch.enable_grad():
            # Without a gradient path from the encoder (all inputs detached) the energy still needs its own.
            position = position if position.requires_grad else position.detach().requires_grad_()
            momentum = momentum if momentum.requires_grad else momentum.detach().requires_grad_()
            position = position + self.dt * self._slope(position, momentum, momentum)
            momentum = momentum - self.dt * self._slope(position, momentum, position)
        return position, momentum

    def _slope(self, position: Tensor, momentum: Tensor, by: Tensor) -> Tensor:
        energy = self.energy(torch.cat([position, momentum], dim=-1)).sum()
        (slope,) = torch.autograd.grad(energy, by, create_graph=True)
        return slope
