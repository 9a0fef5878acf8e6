"""Kinematic smoothness: tokens should move slowly, or without acceleration, in latent space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmjepa.errors import UserError
from mmjepa.objectives.base import SEMANTICS, Objective, Shape, check_choice, register
from mmjepa.objectives.latents import Latents
from mmjepa.objectives.reductions import Term, masked_mean, mean_over_masks

PENALTIES = ("l1", "huber")
ORDERS = (1, 2)
INPUTS = ("all", "appearance")


@register("kinematic")
class Kinematic(Objective):
    """Mean penalty of the first (velocity) or second (acceleration) difference in time (specification 3.11).

    ``corrected`` acts on the student's visible tokens; ``reference`` on the target branch over all tokens, which trains
    something only where targets carry gradient (``stop_gradient: false`` of the objective configuration, without a
    teacher; D4). ``scale_free``: differences are in units of each channel's spread within clips (D11).
    """

    terms = ("kinematic",)

    def __init__(
        self,
        shape: Shape,
        penalty: str = "l1",
        order: int = 1,
        delta: float = 0.1,
        inputs: str = "all",
        scale_free: bool = False,
        semantics: str = "corrected",
    ) -> None:
        super().__init__()
        self.penalty = check_choice("objective kinematic: penalty", penalty, PENALTIES)
        check_choice("objective kinematic: order", str(order), [str(o) for o in ORDERS])
        if delta <= 0:
            raise UserError(f"objective kinematic: delta must be above 0, not {delta}")
        self.order, self.delta = order, delta
        self.inputs = check_choice("objective kinematic: inputs", inputs, INPUTS)
        self.semantics = check_choice("objective kinematic: semantics", semantics, SEMANTICS)
        if scale_free and semantics == "reference":
            raise UserError("objective kinematic: scale_free is about the student's tokens (semantics: corrected)")
        self.scale_free = scale_free
        self.factors = shape.factors

    def forward(self, views: Sequence[Latents]) -> dict[str, Term]:
        return {"kinematic": mean_over_masks([self._term(view) for view in views])}

    def _term(self, view: Latents) -> Term:
        if self.semantics == "reference":
            difference = self._difference(view.clip.target_change)
            everywhere = torch.ones(difference.shape[:-1], dtype=torch.bool, device=difference.device)
            return masked_mean(self._penalise(difference), everywhere)
        valid = view.valid_pairs
        for _ in range(self.order - 1):
            valid = valid[:, 1:] & valid[:, :-1]
        change = view.scale_free_change if self.scale_free else view.context_change
        return masked_mean(self._penalise(self._difference(change)), valid)

    def _difference(self, change: Tensor) -> Tensor:
        """The difference of the wanted order, from the first one (B, T'-1, S, L, D)."""
        chosen = change.flatten(-2) if self.inputs == "all" else self.factors.divide(change)[0]
        for _ in range(self.order - 1):
            chosen = chosen[:, 1:] - chosen[:, :-1]
        return chosen

    def _penalise(self, difference: Tensor) -> Tensor:
        if self.penalty == "l1":
            return difference.abs()
        return F.huber_loss(
            difference, difference.new_zeros(()).expand_as(difference), reduction="none", delta=self.delta
        )
