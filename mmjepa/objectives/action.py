"""AC and FAC: a head reads the change of the patch's mean colour to the next step off the student's token."""

from __future__ import annotations

from collections.abc import Sequence

from mmjepa.models.encoder import CHANNELS
from mmjepa.objectives.base import Objective, Shape, check_choice, register
from mmjepa.objectives.latent_dynamics import INPUTS, token_head
from mmjepa.objectives.latents import Latents
from mmjepa.objectives.reductions import Term, masked_mean, mean_over_masks


@register("action")
class Action(Objective):
    """L1 between the head's output and the change of the tubelet's mean RGB, in normalised units (specification 3.7).

    ``inputs: dynamics`` is FAC: the head sees the dynamics factor only (3.8).
    """

    terms = ("action",)

    def __init__(self, shape: Shape, hidden: int = 256, inputs: str = "all") -> None:
        super().__init__()
        self.inputs = check_choice("objective action: inputs", inputs, INPUTS)
        self.factors = shape.factors
        self.head = token_head(inputs, shape, hidden, CHANNELS)

    def forward(self, views: Sequence[Latents]) -> dict[str, Term]:
        return {"action": mean_over_masks([self._term(view) for view in views])}

    def _term(self, view: Latents) -> Term:
        tokens = view.context_grid[:, :-1]
        tokens = tokens.flatten(-2) if self.inputs == "all" else self.factors.divide(tokens)[1]
        return masked_mean((self.head(tokens).float() - view.clip.colour_change).abs(), view.valid_pairs)
