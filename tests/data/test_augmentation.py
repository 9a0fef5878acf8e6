"""Crop, resize and flip, against Pillow and hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmjepa.data.augmentation import EvaluationTransform, TrainTransform


def noise(frames: int, height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8))


@given(height=st.integers(8, 90), width=st.integers(8, 90), resolution=st.sampled_from([16, 32]))
@settings(max_examples=40, deadline=None)
def test_evaluation_matches_pillow(height: int, width: int, resolution: int) -> None:
    """Short side resized by Pillow's (antialiased) bilinear filter, then the centre."""
    frames = noise(2, height, width)
    scale = resolution / min(height, width)
    size = (max(round(width * scale), resolution), max(round(height * scale), resolution))
    left, top = (size[0] - resolution) // 2, (size[1] - resolution) // 2
    box = (left, top, left + resolution, top + resolution)
    pixels = EvaluationTransform(resolution)(frames)
    assert pixels.shape == (3, 2, resolution, resolution)
    for index in range(2):
        picture = Image.fromarray(frames[index].numpy()).resize(size, Image.Resampling.BILINEAR).crop(box)
        difference = pixels[:, index].permute(1, 2, 0).numpy().astype(int) - np.asarray(picture)
        assert np.abs(difference).max() <= 2  # rounding of the uint8 filter


def corner_coordinates(height: int, width: int) -> torch.Tensor:
    """A frame whose red says the column and green the row."""
    frame = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    frame[..., 0] = torch.arange(width)
    frame[..., 1] = torch.arange(height)[:, None]
    return frame


def crop_box(pixels: torch.Tensor, resolution: int) -> tuple[float, float, bool]:
    """(height, width, flipped) of the crop that a coordinate picture was cut to, from its gradient."""
    inner = slice(resolution // 4, -resolution // 4)
    red, green = pixels[:2, 0].float()
    slope_x = float((red[:, inner][:, -1] - red[:, inner][:, 0]).mean()) / (resolution // 2 - 1)
    slope_y = float((green[inner][-1] - green[inner][0]).mean()) / (resolution // 2 - 1)
    return abs(slope_y) * resolution, abs(slope_x) * resolution, slope_x < 0


def test_crops_cover_the_configured_ranges() -> None:
    transform = TrainTransform(64, [0.3, 0.6], [0.75, 1.35], 0.25)
    frames, generator = corner_coordinates(200, 200), np.random.default_rng(0)
    boxes = np.array([crop_box(transform(frames, generator), 64) for _ in range(400)])
    areas, aspects = boxes[:, 0] * boxes[:, 1] / 200**2, boxes[:, 1] / boxes[:, 0]
    assert 0.28 < areas.min() < 0.33
    assert 0.57 < areas.max() < 0.62
    assert 0.72 < aspects.min() < 0.8
    assert 1.28 < aspects.max() < 1.4
    assert 0.18 < boxes[:, 2].mean() < 0.32


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_flip_mirrors_left_and_right(flip: float) -> None:
    frames = noise(3, 32, 32)
    pixels = TrainTransform(32, [1.0, 1.0], [1.0, 1.0], flip)(frames, np.random.default_rng(0))
    expected = frames.permute(3, 0, 1, 2)
    assert torch.equal(pixels, expected.flip(-1) if flip else expected)


def test_a_crop_that_cannot_fit_takes_the_whole_frame() -> None:
    frames = corner_coordinates(20, 200)
    pixels = TrainTransform(16, [1.0, 1.0], [1.0, 1.0], 0.0)(frames, np.random.default_rng(0))
    height, width, _ = crop_box(pixels, 16)
    assert (height, width) == pytest.approx((20, 200), rel=0.1)
