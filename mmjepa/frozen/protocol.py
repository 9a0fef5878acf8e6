"""What every frozen video encoder promises: tokens on a space-time grid, and how it lives with missing frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from mmjepa.errors import UserError

LatentFill = Literal["mask", "predict"]
"""Ways to deal with missing frames behind the patch embedding; all other fills act on pixels before the encoder."""


@dataclass(frozen=True)
class FrozenSpec:
    """Declared facts of a frozen encoder; ``fingerprint`` names the exact function from pixels to tokens."""

    name: str
    fingerprint: str
    frames: int
    resolution: int
    tubelet: int
    patch: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    width: int
    supports: frozenset[str]
    pretrain_seed: int | None = None

    @property
    def steps(self) -> int:
        """Time steps T' of a clip's tokens."""
        return self.frames // self.tubelet

    @property
    def spatial(self) -> int:
        """Tokens S in one time step."""
        return (self.resolution // self.patch) ** 2


@dataclass(frozen=True)
class Tokens:
    """Tokens (B, T', S, D), and which time steps carry any: ``present`` (B, T') bool. Absent steps hold zeros."""

    tokens: Tensor
    present: Tensor


class FrozenEncoder(Protocol):
    """A video encoder that is never trained here."""

    @property
    def spec(self) -> FrozenSpec:
        """Declared geometry, normalisation, identity, and the latent fills the encoder can do."""
        ...

    def encode(self, pixels: Tensor, frame_mask: Tensor | None = None, fill: LatentFill | None = None) -> Tokens:
        """Normalised pixels (B, 3, T, H, W) -> tokens. One frame (T = 1) is a still image: T' = 1.

        ``frame_mask`` (B, T) is True where a frame was received; it is read only with a latent ``fill``:
        ``mask`` leaves missing tubelets out of the token sequence (true positions kept), ``predict`` does the same and
        then fills them in latent space. Raises UserError if the encoder cannot do the fill.
        """
        ...


def present_tubelets(frame_mask: Tensor, tubelet: int) -> Tensor:
    """Received frames (B, T) bool -> tubelets (B, T') of which at least one frame was received.

    A half-received tubelet is kept: at least one frame of every clip survives, so at least one tubelet does. What
    stands in the lost half is the pixel fill's business (evaluation repeats the last received frame).
    """
    return frame_mask.unflatten(1, (-1, tubelet)).any(dim=2)


def require_fill(spec: FrozenSpec, fill: LatentFill | None, frame_mask: Tensor | None) -> None:
    """Refuse a fill that the encoder cannot do, or one without the mask that says what is missing."""
    if fill is None:
        return
    if fill not in spec.supports:
        able = ", ".join(sorted(spec.supports)) or "none"
        raise UserError(f"encoder {spec.name} cannot do the fill '{fill}' (latent fills it can do: {able})")
    if frame_mask is None:
        raise ValueError(f"fill '{fill}' needs a frame_mask")


def equal_count_groups(present: Tensor) -> list[Tensor]:
    """Index vectors of clips with equally many present tubelets, from (B, T'): each group is a rectangular batch."""
    counts = present.sum(dim=1)
    return [(counts == count).nonzero().flatten() for count in torch.unique(counts)]


def step_tokens(steps: Tensor, spatial: int) -> Tensor:
    """Flat token indices (G, c * S) of the True entries of ``steps`` (G, T'), which has c of them in every row."""
    rows = steps.nonzero()[:, 1].view(len(steps), -1)
    return (rows[:, :, None] * spatial + torch.arange(spatial, device=steps.device)).flatten(1)
