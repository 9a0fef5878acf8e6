"""Motion-guided masks: the map, where blocks go, and how much they hide."""

from __future__ import annotations

import itertools

import pytest
import torch

from mmjepa.errors import UserError
from mmjepa.masking import BlockMask, MaskingConfig, MotionGuidance, draw_masks, motion_map
from mmjepa.masking.motion import guided_origins
from mmjepa.models import TokenGrid

GRID = TokenGrid(3, 6, 6, tubelet=2, patch=4)
MASKS = {"short": BlockMask(blocks=4, spatial_scale=(0.15, 0.15), temporal_scale=(0.34, 0.34))}
CLIPS = 8


def clips() -> torch.Tensor:
    """Noise that stands still, and in every clip but the first a square in the upper left that flickers."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(CLIPS, 3, 1, 24, 24, generator=generator).repeat(1, 1, 6, 1, 1)
    pixels[1:, :, ::2, 2:7, 3:8] += 1
    return pixels


def hidden_share(guidance: MotionGuidance | None, steps: int = 300) -> torch.Tensor:
    """(clips, T', H', W'): how often each token is a target."""
    generator = torch.Generator().manual_seed(1)
    config = MaskingConfig("m", "random", MASKS, guidance)
    motion = motion_map(clips(), GRID, guidance.semantics) if guidance else None
    hidden = torch.zeros(CLIPS, GRID.size)
    for _ in range(steps):
        (drawn,) = draw_masks(config, GRID, CLIPS, generator, motion)
        hidden.scatter_add_(1, drawn.target, torch.ones_like(drawn.target, dtype=torch.float))
    return hidden.view(CLIPS, *GRID.shape) / steps


def test_map_is_the_mean_change_of_every_token_relative_to_the_largest_of_the_clip() -> None:
    pixels = torch.rand(2, 3, 6, 24, 24, generator=torch.Generator().manual_seed(2))
    expected = torch.zeros(2, *GRID.shape, dtype=torch.float64)
    for clip, t, y, x in itertools.product(range(2), range(3), range(6), range(6)):
        changes = []
        for frame in (2 * t, 2 * t + 1):
            now = max(frame, 1)  # nothing comes before the first frame: it takes the second's change
            cell = pixels[clip, :, now - 1 : now + 1, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].double()
            changes.append((cell[:, 1] - cell[:, 0]).abs().mean())
        expected[clip, t, y, x] = sum(changes) / 2
    expected /= expected.amax(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(motion_map(pixels, GRID, "corrected").double(), expected, atol=1e-5, rtol=1e-5)


def test_blocks_are_drawn_with_the_power_of_their_mean_motion() -> None:
    motion = torch.rand(1, 2, 3, 3, generator=torch.Generator().manual_seed(3))
    places = list(itertools.product(range(2), range(2), range(2)))
    score = torch.tensor([motion[0, t, y : y + 2, x : x + 2].mean().item() for t, y, x in places])
    expected = 0.25 / len(places) + 0.75 * score**3 / (score**3).sum()
    guidance = MotionGuidance(strength=3.0, random_rate=0.25)
    origins = guided_origins(motion, (1, 2, 2), 40_000, guidance, torch.Generator().manual_seed(4))[0]
    found = torch.tensor([(origins == torch.tensor(place)).all(dim=1).float().mean() for place in places])
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0)


def test_motion_is_hidden_more_often_and_no_more_is_hidden() -> None:
    uniform, guided = hidden_share(None), hidden_share(MotionGuidance(strength=5.0, random_rate=0.0))
    assert guided[1:, :, :2, :2].mean() > uniform[1:, :, :2, :2].mean() + 0.3
    assert guided.mean().item() == pytest.approx(uniform.mean().item(), abs=0.01)
    torch.testing.assert_close(guided[0], uniform[0], atol=0.12, rtol=0)  # nothing moves there: drawn uniformly


def test_what_is_hidden_is_made_of_tubes_and_matched_within_the_visible_part() -> None:
    masks = {"m": BlockMask(blocks=4, spatial_scale=(0.15, 0.15), max_temporal_keep=0.67)}  # two steps of three
    motion = motion_map(clips(), GRID, "corrected")
    visible = []
    for guidance in (MotionGuidance(strength=5.0, random_rate=0.0), None):
        config = MaskingConfig("m", "random", masks, guidance)
        generator = torch.Generator().manual_seed(6)
        counts = []
        for _ in range(100):
            drawn = draw_masks(config, GRID, 1, generator, motion[1:2] if guidance else None)[0].context[0]
            seen = torch.zeros(GRID.size, dtype=torch.bool)
            seen[drawn] = True
            first, second, third = seen.view(*GRID.shape)
            assert not third.any()
            assert (first != second).sum() <= 1
            counts.append(len(drawn))
        visible.append(sum(counts) / len(counts))
    assert visible[0] == pytest.approx(visible[1], rel=0.05)


def test_reference_blocks_crowd_and_hide_less() -> None:
    grid = TokenGrid(CLIPS, 6, 6, tubelet=2, patch=4)
    pixels = clips().repeat(1, 1, 3, 1, 1)[:, :, : 2 * CLIPS]
    shares = []
    for semantics in ("corrected", "reference"):
        guidance = MotionGuidance(strength=5.0, random_rate=0.0, semantics=semantics)
        config = MaskingConfig("m", "random", MASKS, guidance)
        motion = motion_map(pixels, grid, semantics)[1:]
        generator = torch.Generator().manual_seed(5)
        drawn = [draw_masks(config, grid, CLIPS - 1, generator, motion)[0] for _ in range(50)]
        shares.append(sum(one.target.shape[1] for one in drawn) / len(drawn))
    assert shares[1] < 0.9 * shares[0]


def test_reference_map_scales_step_t_of_every_clip_by_the_maximum_of_clip_t() -> None:
    """Clip 0 stands still, so step 0 of every clip is blown up by the floor of its maximum (defect D5)."""
    grid = TokenGrid(3, 6, 6, tubelet=2, patch=4)
    reference = motion_map(clips()[:3], grid, "reference")
    assert reference[1, 0].max() > 1e4
    assert reference[1, 1:].max() <= 1 + 1e-5
    with pytest.raises(ValueError, match="need 3 clips, not 8"):
        motion_map(clips(), GRID, "reference")


def test_stills_have_no_motion_and_bad_guidance_is_refused() -> None:
    still = TokenGrid(1, 6, 6, tubelet=1, patch=4)
    assert not motion_map(clips()[:, :, :1], still, "corrected").any()
    with pytest.raises(UserError, match="random_rate must lie"):
        MotionGuidance(random_rate=1.5)
    with pytest.raises(UserError, match="corrected, reference"):
        MotionGuidance(semantics="published")
