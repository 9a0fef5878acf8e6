"""Latents from random numbers instead of a network, with any visible set of equal size per clip."""

from __future__ import annotations

import torch
from torch import Tensor

from mmjepa.models import ModelConfig, TokenGrid
from mmjepa.objectives import ClipTargets, FactorConfig, Latents, build_objective
from mmjepa.objectives.base import Objective, Shape

STEPS, SIDE, LEVELS, WIDTH = 4, 2, 2, 6
GRID = TokenGrid.of_clip(2 * STEPS, 4 * SIDE, 4 * SIDE, tubelet=2, patch=4)
PLACES = SIDE * SIDE
SHAPE = Shape(LEVELS, WIDTH, FactorConfig())
MODEL = ModelConfig("made", width=WIDTH, depth=LEVELS, heads=1, levels=LEVELS)


def objective(name: str, seed: int = 0, **parameters: object) -> Objective:
    """One objective with reproducible heads."""
    torch.manual_seed(seed)
    return build_objective(name, parameters, SHAPE)


def random_grids(clips: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Student and target tokens (B, T', S, L, D) and pixels (B, 3, T, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    size = (clips, STEPS, PLACES, LEVELS, WIDTH)
    student, target = (torch.randn(size, generator=generator) for _ in range(2))
    pixels = torch.randn(clips, 3, 2 * STEPS, 4 * SIDE, 4 * SIDE, generator=generator)
    return student, target, pixels


def make(student: Tensor, target: Tensor, pixels: Tensor, visible: Tensor) -> Latents:
    """The view of a mask that leaves ``visible`` (B, T', S) bool, as many in each clip; predictions miss by half the
    student's token."""
    flat = visible.flatten(1)
    context = torch.stack([row.nonzero().flatten() for row in flat])
    hidden = torch.stack([(~row).nonzero().flatten() for row in flat])

    def rows(grid: Tensor, index: Tensor) -> Tensor:
        tokens = grid.flatten(1, 2)
        return torch.stack([clip[places] for clip, places in zip(tokens, index, strict=True)])

    guess = target + student / 2
    return Latents(
        context=rows(student, context),
        context_index=context,
        target_index=hidden,
        predicted_target=rows(guess, hidden),
        predicted_context=rows(guess, context),
        clip=ClipTargets(target.flatten(1, 2), pixels, GRID),
    )


def half_visible(clips: int, seed: int = 0) -> Tensor:
    """(B, T', S) bool: half of the tokens of each clip, among them the first place at all steps."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(clips, STEPS, PLACES, generator=generator)
    draw[:, :, 0] = -1
    order = draw.flatten(1).argsort(dim=1).argsort(dim=1)
    return (order < STEPS * PLACES // 2).unflatten(1, (STEPS, PLACES))
