"""Multi-block masks: which tokens the student sees, and which it must predict (reference specification 2.4).

A mask hides a union of space-time blocks. What stays visible is the context, what is hidden the target. Index lists of
a batch are made equal in length; the recipe's code cut their tails, which always hid the end of the clip, so here a
random subset is dropped instead (``equalize: random``), and ``tail`` exists only to replicate published rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from mmjepa.errors import UserError
from mmjepa.masking.motion import MotionGuidance, guided_origins, hide_as_many
from mmjepa.models.grid import TokenGrid

MAX_REDRAWS = 200
GUIDED_BLOCKS = 4
"""Guided blocks drawn per block of a mask: they overlap, and all are needed until enough tokens are hidden."""
EQUALIZE = ("random", "tail")


class MaskSet(NamedTuple):
    """One mask for every clip of a batch: sorted flat token indices, context (B, K) and target (B, P)."""

    context: Tensor
    target: Tensor


@dataclass
class BlockMask:
    """Geometry of one mask: ``blocks`` rectangles of an area share and aspect, lasting a share of the steps.

    ``max_temporal_keep`` below 1 also hides all steps from that share of the clip on (future prediction);
    ``full_complement`` makes every token that is not context a target, after equalisation.
    """

    blocks: int = 8
    spatial_scale: tuple[float, float] = (0.15, 0.15)
    aspect: tuple[float, float] = (0.75, 1.5)
    temporal_scale: tuple[float, float] = (1.0, 1.0)
    max_temporal_keep: float = 1.0
    full_complement: bool = False

    def __post_init__(self) -> None:
        if self.blocks < 1:
            raise UserError(f"masking: blocks must be at least 1, not {self.blocks}")
        for name in ("spatial_scale", "temporal_scale", "aspect"):
            if len(getattr(self, name)) != 2:
                raise UserError(f"masking: {name} must be two numbers, low and high, not {list(getattr(self, name))}")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise UserError(f"masking: aspect must be a range above 0, not {self.aspect[0]}..{self.aspect[1]}")
        for name in ("spatial_scale", "temporal_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise UserError(f"masking: {name} must be a range within (0, 1], not {low}..{high}")
        if not 0 < self.max_temporal_keep <= 1:
            raise UserError(f"masking: max_temporal_keep must lie in (0, 1], not {self.max_temporal_keep}")


@dataclass
class MaskingConfig:
    """The masks that every clip gets in one step, by name, and how index lists are made equal in length.

    ``motion`` draws blocks where pixels change; null: uniformly. ``group``: how many clips share a block size and the
    length of their lists, which is the shortest one's (so large groups see little); null: all clips of a step.
    ``predicted``: share of the places (rows and columns) of each clip's targets that are predicted, drawn anew in every
    step; what else is hidden stays hidden, and costs nothing. Places with all their steps, so that pairs of steps
    remain, but for the tokens by which lists of a group are made equal in length.
    ``lengths``: lists are cut to so many different lengths, by less than one part in so many of the clip's tokens, and
    lists shorter than that to a power of two; null: to any. Whatever keeps a kernel per shape (oneDNN) then keeps few.
    """

    name: str = "multiblock"
    equalize: str = "random"
    masks: dict[str, BlockMask] = field(default_factory=dict)
    motion: MotionGuidance | None = None
    group: int | None = None
    predicted: float = 1.0
    lengths: int | None = None

    def __post_init__(self) -> None:
        if self.lengths is not None and self.lengths < 2:
            raise UserError(f"masking: lengths must be at least 2 or null, not {self.lengths}")
        if not 0 < self.predicted <= 1:
            raise UserError(f"masking: predicted must lie in (0, 1], not {self.predicted}")
        if self.equalize not in EQUALIZE:
            raise UserError(f"masking: equalize must be one of {', '.join(EQUALIZE)}, not {self.equalize!r}")
        if not self.masks:
            raise UserError("masking: at least one mask is needed")
        if self.group is not None and self.group < 1:
            raise UserError(f"masking: group must be at least 1, not {self.group}")

    @property
    def hides_next_steps(self) -> bool:
        """Whether any mask hides a place at some steps only; else what is visible once is visible throughout."""
        return any(mask.temporal_scale[0] < 1 or mask.max_temporal_keep < 1 for mask in self.masks.values())

    def group_size(self, batch: int, micro_batch: int) -> int:
        """Clips per group in steps of ``batch``. Raises UserError if a micro-batch would hold parts of several."""
        group = self.group or batch
        if batch % group or group % micro_batch:
            raise UserError(
                f"masking.group={group} must divide batch_size={batch} and be a multiple of the {micro_batch} clips of "
                f"a micro-batch: use {-(-micro_batch // group)} times as many ranks, or accumulation"
            )
        return group


def draw_masks(
    config: MaskingConfig, grid: TokenGrid, batch: int, generator: torch.Generator, motion: Tensor | None = None
) -> list[MaskSet]:
    """One MaskSet per configured mask for ``batch`` clips on ``grid``; a pure function of the generator's state.

    motion: map (batch, T', H', W') of each clip (:func:`motion_map`), needed with ``config.motion``.
    Raises UserError if the blocks are so large on this grid that no token stays visible.
    """
    if (config.motion is None) != (motion is None):
        raise ValueError("a motion map is needed with masking.motion, and only then")
    return [_draw(name, config, grid, batch, generator, motion) for name in config.masks]


def _draw(
    name: str, config: MaskingConfig, grid: TokenGrid, batch: int, generator: torch.Generator, motion: Tensor | None
) -> MaskSet:
    visible = _visible(name, config, grid, batch, generator, motion)
    multiple = -(-grid.size // config.lengths) if config.lengths else 1
    context = _equal_length(visible, config.equalize, generator, multiple)
    hidden = ~visible
    if config.masks[name].full_complement:
        hidden = ~torch.zeros_like(visible).scatter_(1, context, True)
    if config.predicted < 1:
        hidden &= _some_places(hidden, config.predicted, grid, generator)
    # All the rest has as many lengths as the context has.
    uncut = config.masks[name].full_complement and config.predicted == 1
    return MaskSet(context, _equal_length(hidden, config.equalize, generator, 1 if uncut else multiple))


def _some_places(hidden: Tensor, share: float, grid: TokenGrid, generator: torch.Generator) -> Tensor:
    """(batch, N) bool: at a ``share`` of the places where the clip has hidden tokens (at least one), at all steps."""
    anywhere = hidden.unflatten(1, (grid.steps, grid.spatial)).any(dim=1)
    count = (share * anywhere.sum(dim=1, keepdim=True).double() - 1e-9).ceil()  # 0.6 of 795 is 477.00000000000006
    priority = torch.rand(anywhere.shape, generator=generator).masked_fill(~anywhere, 2.0)
    rank = priority.argsort(dim=1).argsort(dim=1)
    return (rank < count).repeat(1, grid.steps)


def _visible(
    name: str, config: MaskingConfig, grid: TokenGrid, batch: int, generator: torch.Generator, motion: Tensor | None
) -> Tensor:
    """(batch, N) bool: outside all blocks, and early enough. Clips left without a context token are drawn again."""
    mask = config.masks[name]
    size = _block_size(mask, grid, generator)
    late = _late(mask, grid)
    visible = torch.zeros(batch, grid.size, dtype=torch.bool)
    for _ in range(MAX_REDRAWS):
        empty = ~visible.any(dim=1)
        if not empty.any():
            break
        part = None if motion is None else motion[empty]
        covered = _covered(size, mask.blocks, grid, int(empty.sum()), generator, config.motion, part, late)
        visible[empty] = ~(covered | late)
    else:
        raise UserError(f"masking: mask {name!r} hides every token of a {grid.shape} grid; use fewer or smaller blocks")
    if visible.all(dim=1).any():
        raise UserError(f"masking: mask {name!r} hides no token of a {grid.shape} grid")
    return visible


def _block_size(mask: BlockMask, grid: TokenGrid, generator: torch.Generator) -> tuple[int, int, int]:
    """One block size (steps, rows, columns) for the whole batch."""
    draws = torch.rand(3, generator=generator).tolist()
    ranges = (mask.temporal_scale, mask.spatial_scale, mask.aspect)
    temporal, spatial, aspect = (low + (high - low) * u for (low, high), u in zip(ranges, draws, strict=True))
    area = max(1, int(grid.spatial * spatial))
    height = min(grid.height, max(1, round(math.sqrt(area * aspect))))
    width = min(grid.width, max(1, round(math.sqrt(area / aspect))))
    return max(1, int(grid.steps * temporal)), height, width


def _covered(
    size: tuple[int, int, int],
    blocks: int,
    grid: TokenGrid,
    batch: int,
    generator: torch.Generator,
    guidance: MotionGuidance | None,
    motion: Tensor | None,
    late: Tensor,
) -> Tensor:
    """(batch, N) bool: inside at least one block; origins uniform over the places that fit, or drawn by motion.

    ``late`` (N,) tokens are hidden anyway: they do not count where as many are to be hidden as without guidance.
    """
    places = [cells - length + 1 for length, cells in zip(size, grid.shape, strict=True)]
    draws = [torch.randint(0, count, (batch, blocks), generator=generator) for count in places]
    uniform = _inside(torch.stack(draws, dim=-1), size, grid)
    if guidance is None or motion is None:
        return uniform.any(dim=1)
    more = blocks if guidance.semantics == "reference" else GUIDED_BLOCKS * blocks
    guided = _inside(guided_origins(motion, size, more, guidance, generator), size, grid)
    if guidance.semantics == "reference":
        return guided.any(dim=1)
    return hide_as_many(guided & ~late, uniform & ~late, grid, generator)


def _late(mask: BlockMask, grid: TokenGrid) -> Tensor:
    """(N,) bool: tokens of the steps that ``max_temporal_keep`` hides."""
    kept = max(1, int(grid.steps * mask.max_temporal_keep)) if mask.max_temporal_keep < 1 else grid.steps
    return torch.arange(grid.size) >= kept * grid.spatial


def _inside(origins: Tensor, size: tuple[int, int, int], grid: TokenGrid) -> Tensor:
    """(B, M, N) bool: which tokens lie in each of the blocks at ``origins`` (B, M, 3)."""
    inside = []
    for axis, (length, cells) in enumerate(zip(size, grid.shape, strict=True)):
        position, origin = torch.arange(cells), origins[..., axis, None]
        inside.append((position >= origin) & (position < origin + length))
    steps, rows, columns = inside
    return (steps[..., :, None, None] & rows[..., None, :, None] & columns[..., None, None, :]).flatten(2)


def _equal_length(member: Tensor, equalize: str, generator: torch.Generator, multiple: int) -> Tensor:
    """Sorted member indices (B, K) of a (B, N) bool, K the smallest count of the batch, cut to a ``multiple``.

    Fewer than a multiple are cut to a power of two.
    """
    count = int(member.sum(dim=1).min())
    if count >= multiple:
        count -= count % multiple
    elif count:
        count = 1 << (count.bit_length() - 1)
    priority = torch.rand(member.shape, generator=generator)
    if equalize == "tail":
        priority = torch.arange(member.shape[1]).expand(member.shape) / member.shape[1]
    priority = priority.masked_fill(~member, 2.0)
    return priority.topk(count, dim=1, largest=False).indices.sort(dim=1).values
