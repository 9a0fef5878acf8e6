"""Everything an objective may look at, built once per step and mask and shared by all objectives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mmjepa.models import TokenGrid, gather_tokens


@dataclass
class Latents:
    """Tokens of one mask on a batch of clips. Level is an axis, never a concatenation.

    context (B, K, L, D): student tokens at ``context_index`` (B, K).
    target (B, N, L, D): target-encoder tokens of the whole clip, normalised per level; never with gradient.
    predicted_target (B, P, L, D) at ``target_index`` (B, P); predicted_context (B, K, L, D).
    pixels (B, 3, T, H, W): the normalised clip.
    """

    context: Tensor
    context_index: Tensor
    target_index: Tensor
    target: Tensor
    predicted_target: Tensor
    predicted_context: Tensor
    pixels: Tensor
    grid: TokenGrid

    def require_targets(self, asking: str) -> None:
        """Raises ValueError if every token is visible: ``asking`` has no hidden token to predict then."""
        if self.target_index.shape[1] == 0:
            raise ValueError(f"objective {asking}: the mask hides no token, so there is none to predict")

    @cached_property
    def target_at_target(self) -> Tensor:
        """Target tokens (B, P, L, D) at the target positions."""
        return gather_tokens(self.target, self.target_index)

    @cached_property
    def target_at_context(self) -> Tensor:
        """Target tokens (B, K, L, D) at the context positions."""
        return gather_tokens(self.target, self.context_index)

    @cached_property
    def visible(self) -> Tensor:
        """(B, T', S) bool: the token is in the context."""
        return self._marked(self.context_index)

    @cached_property
    def targeted(self) -> Tensor:
        """(B, T', S) bool: the token is a target."""
        return self._marked(self.target_index)

    def _marked(self, index: Tensor) -> Tensor:
        flat = torch.zeros(len(index), self.grid.size, dtype=torch.bool, device=index.device)
        return flat.scatter(1, index, True).unflatten(1, (self.grid.steps, self.grid.spatial))

    @cached_property
    def valid_pairs(self) -> Tensor:
        """(B, T'-1, S) bool: the same place is visible at t and at t+1."""
        return self.visible[:, :-1] & self.visible[:, 1:]

    @cached_property
    def hidden_next(self) -> Tensor:
        """(B, T'-1, S) bool: the place is visible at t and a target at t+1.

        Tokens that equalising list lengths has dropped are neither: most holes of one step are of that kind.
        """
        return self.visible[:, :-1] & self.targeted[:, 1:]

    @cached_property
    def context_grid(self) -> Tensor:
        """Student tokens scattered to (B, T', S, L, D), zeros where nothing is visible."""
        tokens = self.context.float()
        index = self.context_index[:, :, None, None].expand_as(tokens)
        full = tokens.new_zeros(len(tokens), self.grid.size, *tokens.shape[2:]).scatter(1, index, tokens)
        return full.unflatten(1, (self.grid.steps, self.grid.spatial))

    @cached_property
    def target_grid(self) -> Tensor:
        """Target tokens as (B, T', S, L, D)."""
        return self.target.unflatten(1, (self.grid.steps, self.grid.spatial))

    @cached_property
    def context_change(self) -> Tensor:
        """Student tokens at t+1 minus at t: (B, T'-1, S, L, D), meaningful at valid pairs only."""
        return self.context_grid[:, 1:] - self.context_grid[:, :-1]

    @cached_property
    def target_change(self) -> Tensor:
        """Target tokens at t+1 minus at t: (B, T'-1, S, L, D)."""
        return self.target_grid[:, 1:] - self.target_grid[:, :-1]
