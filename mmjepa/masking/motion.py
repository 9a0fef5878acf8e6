"""Motion-guided masks: blocks are drawn preferentially where pixels change (reference specification 3.9)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmjepa.errors import UserError
from mmjepa.models.grid import TokenGrid

SEMANTICS = ("corrected", "reference")
SCORE_FLOOR = 1e-6
"""Of a block without motion, against a map whose maximum is 1: it can be drawn, but hardly ever is beside motion."""


@dataclass
class MotionGuidance:
    """How block origins o are drawn: P(o) ~ s(o)^strength, s(o) the mean motion inside the block; with probability
    ``random_rate`` uniformly.

    Under ``corrected`` semantics the motion of a token is the mean change over its pixels, scaled per clip, and each
    mask hides as many tokens as a uniform draw of its blocks would. Under ``reference`` the change is point-sampled,
    scaled across clips along the time axis (defect D5, which needs as many clips per rank as token steps), and blocks
    that crowd on the motion overlap and hide less (D7).
    """

    strength: float = 2.0
    random_rate: float = 0.1
    semantics: str = "corrected"

    def __post_init__(self) -> None:
        if self.strength < 0 or not 0 <= self.random_rate <= 1:
            raise UserError("masking.motion: strength must not be negative, random_rate must lie in [0, 1]")
        if self.semantics not in SEMANTICS:
            raise UserError(f"masking.motion: semantics must be one of {', '.join(SEMANTICS)}, not {self.semantics!r}")


def motion_map(pixels: Tensor, grid: TokenGrid, semantics: str) -> Tensor:
    """Motion per token, (B, T', H', W') float32, at most 1 under corrected semantics, of clips (B, 3, T, H, W).

    A still, or a clip in which nothing changes, has a map of zeros: its blocks are drawn uniformly. ``pixels`` are
    the clips of a group. Raises ValueError if the reference's scaling is impossible for them.
    """
    batch, _, frames = pixels.shape[:3]
    if frames == 1:
        return torch.zeros(batch, *grid.shape)
    change = pixels.float().diff(dim=2).abs().mean(dim=1)  # (B, T - 1, H, W)
    change = torch.cat([change[:, :1], change], dim=1)[:, None]  # the first frame's change is the second's
    if semantics == "corrected":
        cells = F.avg_pool3d(change, (grid.tubelet, grid.patch, grid.patch))[:, 0]
        return cells / cells.flatten(1).amax(dim=1).clamp(min=SCORE_FLOOR)[:, None, None, None]
    cells = F.interpolate(change, size=grid.shape, mode="trilinear", align_corners=False)[:, 0]
    if batch != grid.steps:
        raise ValueError(f"reference semantics scale step t by clip t: they need {grid.steps} clips, not {batch}")
    return cells / cells.flatten(1).amax(dim=1).clamp(min=SCORE_FLOOR)[:, None, None]


def guided_origins(
    motion: Tensor, size: tuple[int, int, int], blocks: int, guidance: MotionGuidance, generator: torch.Generator
) -> Tensor:
    """Origins (B, blocks, 3) of blocks of ``size`` (steps, rows, columns), drawn by ``motion`` (B, T', H', W')."""
    scores = F.avg_pool3d(motion[:, None], size, stride=1)[:, 0]  # mean motion of the block at every origin
    places = scores.shape[1:]
    # In logarithms: a power of a small score would underflow to zero.
    logits = guidance.strength * scores.flatten(1).clamp(min=SCORE_FLOOR).log()
    chosen = torch.multinomial(logits.softmax(dim=1), blocks, replacement=True, generator=generator)
    uniform = torch.randint(0, math.prod(places), chosen.shape, generator=generator)
    at_random = torch.rand(chosen.shape, generator=generator) < guidance.random_rate
    flat = torch.where(at_random, uniform, chosen)
    return torch.stack(torch.unravel_index(flat, places), dim=-1)


def hide_as_many(guided: Tensor, uniform: Tensor, grid: TokenGrid, generator: torch.Generator) -> Tensor:
    """(B, N) bool with as many True per clip as the ``uniform`` blocks (B, M, N) cover together.

    Cells are taken from the ``guided`` blocks (B, G, N), earlier ones first, then from the uniform ones; of the block
    in which the count is reached, whole places (all its steps at a cell) in random order, so that what is hidden stays
    made of tubes, all but one of them whole.
    """
    blocks = torch.cat([guided, uniform], dim=1)
    count = blocks.shape[1]
    rank = torch.where(blocks, torch.arange(count)[:, None], count).amin(dim=1)  # (B, N)
    tie = torch.rand(len(rank), grid.spatial, generator=generator, dtype=torch.float64).repeat(1, grid.steps)
    place = (rank + tie).argsort(dim=1).argsort(dim=1)  # of each cell in its clip's order
    return place < uniform.any(dim=1).sum(dim=1, keepdim=True)
