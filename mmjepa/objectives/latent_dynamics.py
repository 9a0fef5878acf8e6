"""LD: a head reads the change of the target tokens to the next step off the student's token."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mmjepa.errors import UserError
from mmjepa.objectives.base import SEMANTICS, Objective, Shape, check_choice, register
from mmjepa.objectives.latents import Latents
from mmjepa.objectives.reductions import Term, masked_mean, mean_over_masks, softmax_weights

INPUTS = ("all", "dynamics")


def token_head(inputs: str, shape: Shape, hidden: int, outputs: int) -> nn.Sequential:
    """Linear-GELU-Linear head on all channels of a token, or on its dynamics factor only."""
    if hidden < 1:
        raise UserError(f"objective: hidden must be at least 1, not {hidden}")
    width = (
        shape.levels * shape.width if inputs == "all" else shape.factors.dynamics_channels(shape.levels, shape.width)
    )
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, outputs))


@register("latent_dynamics")
class LatentDynamics(Objective):
    """L1 between the head's output and the target tokens' next-step change at valid pairs (specification 3.4).

    The change of all channels is predicted, also from the dynamics factor alone (``inputs: dynamics``).
    ``hard_region_temperature`` weights pairs by the softmax of their errors over the batch; the weights are detached.
    ``semantics: reference`` detaches the weighted error as well, as the published code did: nothing learns (D2).
    """

    terms = ("latent_dynamics",)

    def __init__(
        self,
        shape: Shape,
        hidden: int = 256,
        inputs: str = "all",
        hard_region_temperature: float | None = None,
        semantics: str = "corrected",
    ) -> None:
        super().__init__()
        self.inputs = check_choice("objective latent_dynamics: inputs", inputs, INPUTS)
        self.semantics = check_choice("objective latent_dynamics: semantics", semantics, SEMANTICS)
        self.hard_region_temperature = hard_region_temperature
        self.factors = shape.factors
        self.levels = shape.levels
        self.head = token_head(inputs, shape, hidden, shape.levels * shape.width)

    def forward(self, views: Sequence[Latents]) -> dict[str, Term]:
        return {"latent_dynamics": mean_over_masks([self._term(view) for view in views])}

    def _term(self, view: Latents) -> Term:
        tokens = view.context_grid[:, :-1]
        tokens = tokens.flatten(-2) if self.inputs == "all" else self.factors.divide(tokens)[1]
        change = self.head(tokens).float().unflatten(-1, (self.levels, -1))
        errors = (change - view.target_change.detach()).abs().mean(dim=(-2, -1))  # B, T'-1, S
        if self.hard_region_temperature is not None:
            errors = errors * softmax_weights(errors, view.valid_pairs, self.hard_region_temperature)
            if self.semantics == "reference":
                errors = errors.detach()
        return masked_mean(errors, view.valid_pairs)
