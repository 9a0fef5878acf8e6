"""Three-axis rotary positions, as tables computed once per grid (and gathered once per index set).

Each head's channels are cut into a time, a height and a width segment of equal even size; the rest stays unrotated.
Adjacent channels form a pair that is turned by ``position * 10000 ** (-i / (segment / 2))`` (V-JEPA 2). Height and
width positions are stretched to a common range (0..15 for a reference grid of 16 cells), so that an encoder sees the
same angles at any resolution; time is not stretched.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from mmjepa.models.grid import TokenGrid

BASE = 10_000.0
REFERENCE_CELLS = 16


class RotaryTable(NamedTuple):
    """Cosines and sines for every token and channel pair: each (1 or B, 1, tokens, head_dim // 2), float32."""

    cos: Tensor
    sin: Tensor

    def gather(self, index: Tensor) -> RotaryTable:
        """The rows of ``index`` (B, K): tables of shape (B, 1, K, head_dim // 2)."""
        return RotaryTable(self.cos[0, 0][index].unsqueeze(1), self.sin[0, 0][index].unsqueeze(1))

    def to(self, dtype: torch.dtype) -> RotaryTable:
        """The same tables in another dtype. Angles are always formed in float32 first (bfloat16 angles drift)."""
        return RotaryTable(self.cos.to(dtype), self.sin.to(dtype))


def rotary_table(grid: TokenGrid, head_dim: int, device: torch.device | None = None) -> RotaryTable:
    """Table for all tokens of ``grid`` in flat order; cached per (grid shape, head_dim, device)."""
    return _cached_table(grid.shape, head_dim, device or torch.device("cpu"))


def rotate(x: Tensor, table: RotaryTable) -> Tensor:
    """Turn the channel pairs of queries or keys ``x`` (B, heads, tokens, head_dim) by the table's angles."""
    pairs = x.unflatten(-1, (-1, 2))
    even, odd = pairs.unbind(-1)
    cos, sin = table
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


@lru_cache(maxsize=64)
def _cached_table(shape: tuple[int, int, int], head_dim: int, device: torch.device) -> RotaryTable:
    segment = 2 * (head_dim // 3 // 2)
    frequencies = BASE ** (-torch.arange(segment // 2, dtype=torch.float32) / (segment / 2))
    steps, height, width = (torch.arange(cells, dtype=torch.float32) for cells in shape)
    axes = torch.meshgrid(steps, _stretch(height), _stretch(width), indexing="ij")
    angles = torch.cat([axis.flatten()[:, None] * frequencies for axis in axes], dim=1)
    unrotated = torch.zeros(angles.shape[0], head_dim // 2 - angles.shape[1])
    angles = torch.cat([angles, unrotated], dim=1)[None, None].to(device)
    return RotaryTable(angles.cos(), angles.sin())


def _stretch(positions: Tensor) -> Tensor:
    cells = len(positions)
    return positions * (REFERENCE_CELLS - 1) / (cells - 1) if cells > 1 else positions
