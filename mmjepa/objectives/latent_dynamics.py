"""LD: a head reads the change of the target tokens to the next step off the student's token."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mmjepa.errors import UserError
from mmjepa.objectives.base import SEMANTICS, Objective, Shape, check_choice, register
from mmjepa.objectives.latents import Latents
from mmjepa.objectives.reductions import Term, masked_mean, mean_over_masks, softmax_weights

INPUTS = ("all", "dynamics")
PAIRS = ("visible", "hidden")


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
    ``pairs: visible`` are the paper's valid pairs: the student has seen the next step, so that the head reads a change
    off what is in view (D10). ``pairs: hidden`` are those whose next step is a target: the head predicts into
    masked steps, of which the student sees at most what lies elsewhere or later. Blocks that last throughout have none.
    ``hard_region_temperature`` weights pairs by the softmax of their errors over the batch; the weights are detached.
    ``hard_region_relative``: that temperature is in units of the errors' standard deviation.
    ``semantics: reference`` detaches the weighted error as well, as the published code did: nothing learns (D2).
    """

    terms = ("latent_dynamics",)

    def __init__(
        self,
        shape: Shape,
        hidden: int = 256,
        inputs: str = "all",
        pairs: str = "visible",
        hard_region_temperature: float | None = None,
        hard_region_relative: bool = False,
        semantics: str = "corrected",
    ) -> None:
        super().__init__()
        self.inputs = check_choice("objective latent_dynamics: inputs", inputs, INPUTS)
        self.semantics = check_choice("objective latent_dynamics: semantics", semantics, SEMANTICS)
        self.pairs = check_choice("objective latent_dynamics: pairs", pairs, PAIRS)
        self.needs_hidden_next = pairs == "hidden"
        if hard_region_temperature is not None and hard_region_temperature <= 0:
            raise UserError(
                f"objective latent_dynamics: hard_region_temperature must be above 0, not {hard_region_temperature}"
            )
        if hard_region_relative and hard_region_temperature is None:
            raise UserError("objective latent_dynamics: hard_region_relative needs a hard_region_temperature")
        self.hard_region_temperature, self.hard_region_relative = hard_region_temperature, hard_region_relative
        self.factors = shape.factors
        self.levels = shape.levels
        self.head = token_head(inputs, shape, hidden, shape.levels * shape.width)

    def forward(self, views: Sequence[Latents]) -> dict[str, Term]:
        return {"latent_dynamics": mean_over_masks([self._term(view) for view in views])}

    def _term(self, view: Latents) -> Term:
        tokens = view.context_grid[:, :-1]
        tokens = tokens.flatten(-2) if self.inputs == "all" else self.factors.divide(tokens)[1]
        change = self.head(tokens).float().unflatten(-1, (self.levels, -1))
        errors = (change - view.clip.target_change.detach()).abs().mean(dim=(-2, -1))  # B, T'-1, S
        pairs = view.valid_pairs if self.pairs == "visible" else view.hidden_next
        if self.hard_region_temperature is not None:
            errors = errors * softmax_weights(errors, pairs, self.hard_region_temperature, self.hard_region_relative)
            if self.semantics == "reference":
                errors = errors.detach()
        return masked_mean(errors, pairs)
