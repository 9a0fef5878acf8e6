"""Everything an objective may look at, built once per step and mask and shared by all objectives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mmjepa.models import TokenGrid, gather_tokens
from mmjepa.models.encoder import CHANNELS, patchify
from mmjepa.objectives.reductions import root_mean_square


@dataclass(frozen=True)
class ClipTargets:
    """What all masks of a step share: the target encoder's tokens of whole clips, and the clips.

    target (B, N, L, D): normalised per level; without gradient unless ``stop_gradient`` is false. pixels
    (B, 3, T, H, W): normalised.
    """

    target: Tensor
    pixels: Tensor
    grid: TokenGrid

    @cached_property
    def target_grid(self) -> Tensor:
        """Target tokens as (B, T', S, L, D)."""
        return self.target.unflatten(1, (self.grid.steps, self.grid.spatial))

    @cached_property
    def target_change(self) -> Tensor:
        """Target tokens at t+1 minus at t: (B, T'-1, S, L, D)."""
        return self.target_grid[:, 1:] - self.target_grid[:, :-1]

    @cached_property
    def target_speed(self) -> Tensor:
        """Length of :attr:`target_change` over all channels: (B, T'-1, S)."""
        return self.target_change.flatten(-2).norm(dim=-1)

    @cached_property
    def target_spectrum(self) -> Tensor:
        """Unnormalised spectrum over time of the target tokens, complex: (B, T' // 2 + 1, S, L, D)."""
        return torch.fft.rfft(self.target_grid, dim=1)

    @cached_property
    def colour_change(self) -> Tensor:
        """Mean RGB of each tubelet at t+1 minus at t: (B, T'-1, S, 3)."""
        tubelets = patchify(self.pixels.float(), self.grid).unflatten(-1, (CHANNELS, -1)).mean(dim=-1)
        colour = tubelets.unflatten(1, (self.grid.steps, self.grid.spatial))
        return colour[:, 1:] - colour[:, :-1]


@dataclass
class Latents:
    """Tokens of one mask on a batch of clips. Level is an axis, never a concatenation.

    context (B, K, L, D): student tokens at ``context_index`` (B, K). predicted_target (B, P, L, D) at ``target_index``
    (B, P); predicted_context (B, K, L, D). clip: of all masks of the step.
    """

    context: Tensor
    context_index: Tensor
    target_index: Tensor
    predicted_target: Tensor
    predicted_context: Tensor
    clip: ClipTargets

    @property
    def grid(self) -> TokenGrid:
        """Token grid of the clips."""
        return self.clip.grid

    def require_targets(self, asking: str) -> None:
        """Raises ValueError if every token is visible: ``asking`` has no hidden token to predict then."""
        if self.target_index.shape[1] == 0:
            raise ValueError(f"objective {asking}: the mask hides no token, so there is none to predict")

    @property
    def target_at_target(self) -> Tensor:
        """Target tokens (B, P, L, D) at the target positions; not kept, as they are used when memory peaks."""
        return gather_tokens(self.clip.target, self.target_index)

    @property
    def target_at_context(self) -> Tensor:
        """Target tokens (B, K, L, D) at the context positions; not kept either."""
        return gather_tokens(self.clip.target, self.context_index)

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
    def context_change(self) -> Tensor:
        """Student tokens at t+1 minus at t: (B, T'-1, S, L, D), meaningful at valid pairs only."""
        return self.context_grid[:, 1:] - self.context_grid[:, :-1]

    @cached_property
    def context_spread(self) -> Tensor:
        """How far the student's tokens lie from their clip's mean token, per channel: (L, D), of the global batch.

        The unit of scale-free changes. What is constant in a clip does not count, so that telling clips apart cannot
        make changes look small; what is constant at a place does, a code of positions too.
        """
        tokens = self.context.float()
        return root_mean_square((tokens - tokens.mean(dim=1, keepdim=True)).flatten(0, 1))

    @cached_property
    def scale_free_change(self) -> Tensor:
        """:attr:`context_change` in units of :attr:`context_spread`: shrinking a channel does not change it (D11)."""
        return self.context_change / self.context_spread
