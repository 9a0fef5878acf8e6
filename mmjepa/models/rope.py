"""Three-axis rotary positions, as tables computed once per grid (and gathered once per index set).

Each head's channels are cut into a time, a height and a width segment of equal even size; the rest stays unrotated.
Adjacent channels form a pair that is turned by ``position * 10000 ** (-i / (segment / 2))`` (V-JEPA 2). Height and
width positions are stretched to a common range (0..15 for a reference grid of 16 cells), so that an encoder sees the
same angles at any resolution; time is not stretched.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from mmjepa.models.grid import TokenGrid

BASE = 10_000.0
REFERENCE_CELLS = 16


def rotary_table(grid: TokenGrid, head_dim: int, device: torch.device | None = None) -> Tensor:
    """Unit complex numbers for all tokens of ``grid`` in flat order and all channel pairs: complex64
    (1, 1, tokens, head_dim // 2). Cached per (grid shape, head_dim, device)."""
    return _cached_table(grid.shape, head_dim, device or torch.device("cpu"))


def table_of(table: Tensor, index: Tensor) -> Tensor:
    """The rows of a whole grid's ``table`` for the tokens ``index`` (B, K): (B, 1, K, head_dim // 2)."""
    return table[0, 0][index].unsqueeze(1)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn the channel pairs of queries or keys ``x`` (..., B, heads, tokens, head_dim) by the table's angles.

    One complex product: written with real ones, stacking the pairs again costs ten times as much, unless a compiler
    makes one loop of it, and compilers do not take complex numbers. In float32 whatever the dtype of ``x``, which is
    also the result's.
    """
    if torch.compiler.is_compiling():
        (even, odd), (cos, sin) = x.float().unflatten(-1, (-1, 2)).unbind(-1), torch.view_as_real(table).unbind(-1)
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).to(x.dtype)
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * table).flatten(-2).to(x.dtype)


@lru_cache(maxsize=64)
def _cached_table(shape: tuple[int, int, int], head_dim: int, device: torch.device) -> Tensor:
    segment = 2 * (head_dim // 3 // 2)
    frequencies = BASE ** (-torch.arange(segment // 2, dtype=torch.float32) / (segment / 2))
    steps, height, width = (torch.arange(cells, dtype=torch.float32) for cells in shape)
    axes = torch.meshgrid(steps, _stretch(height), _stretch(width), indexing="ij")
    angles = torch.cat([axis.flatten()[:, None] * frequencies for axis in axes], dim=1)
    unrotated = torch.zeros(angles.shape[0], head_dim // 2 - angles.shape[1])
    angles = torch.cat([angles, unrotated], dim=1)[None, None]
    return torch.polar(torch.ones_like(angles), angles).to(device)


def _stretch(positions: Tensor) -> Tensor:
    cells = len(positions)
    return positions * (REFERENCE_CELLS - 1) / (cells - 1) if cells > 1 else positions
