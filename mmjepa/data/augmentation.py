"""Frames to network input: crop, resize and flip, the same for all frames of a clip, and at last normalise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_CROP_TRIES = 10


class TrainTransform:
    """Random resized crop and horizontal flip (as in V-JEPA: area and log-uniform aspect).

    area: range of the crop's share of the frame; aspect: range of width / height; flip: probability of mirroring left
    and right, which must be 0 where directions carry meaning.
    """

    def __init__(self, resolution: int, area: Sequence[float], aspect: Sequence[float], flip: float) -> None:
        self._resolution, self._flip = resolution, flip
        self._area, self._log_aspect = (area[0], area[1]), (math.log(aspect[0]), math.log(aspect[1]))

    def __call__(self, frames: Tensor, generator: np.random.Generator) -> Tensor:
        """(T, H, W, 3) uint8 -> (3, T, resolution, resolution) uint8, by draws from ``generator`` alone."""
        top, left, height, width = self._crop(frames.shape[1], frames.shape[2], generator)
        crop = frames[:, top : top + height, left : left + width]
        pixels = resize(crop, self._resolution, self._resolution)
        if generator.random() < self._flip:
            pixels = pixels.flip(-1)
        return pixels.transpose(0, 1)

    def _crop(self, height: int, width: int, generator: np.random.Generator) -> tuple[int, int, int, int]:
        """(top, left, height, width) of a random crop; the whole frame if no draw fits into it."""
        for _ in range(_CROP_TRIES):
            area = height * width * generator.uniform(*self._area)
            aspect = math.exp(generator.uniform(*self._log_aspect))
            crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < crop_width <= width and 0 < crop_height <= height:
                top = int(generator.integers(height - crop_height + 1))
                left = int(generator.integers(width - crop_width + 1))
                return top, left, crop_height, crop_width
        return 0, 0, height, width


class EvaluationTransform:
    """Resize the short side to ``resolution``, crop the centre. No randomness."""

    def __init__(self, resolution: int) -> None:
        self._resolution = resolution

    def __call__(self, frames: Tensor) -> Tensor:
        """(T, H, W, 3) uint8 -> (3, T, resolution, resolution) uint8."""
        side, (height, width) = self._resolution, frames.shape[1:3]
        scale = side / min(height, width)
        pixels = resize(frames, max(round(height * scale), side), max(round(width * scale), side))
        top, left = (pixels.shape[2] - side) // 2, (pixels.shape[3] - side) // 2
        return pixels[:, :, top : top + side, left : left + side].transpose(0, 1)


@dataclass(frozen=True)
class Normalise:
    """(..., 3, T, H, W) uint8 -> the same shape, float32: (pixel / 255 - mean) / std per channel, on any device."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels: Tensor) -> Tensor:
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        scale, shift = (table.view(3, 1, 1, 1).to(pixels.device) for table in (1 / (255 * std), -mean / std))
        return pixels.to(torch.float32, memory_format=torch.contiguous_format).mul_(scale).add_(shift)


def resize(frames: Tensor, height: int, width: int) -> Tensor:
    """(T, H, W, 3) uint8 -> (T, 3, height, width) uint8, bilinear, antialiased when it shrinks."""
    pixels = frames.permute(0, 3, 1, 2)
    if pixels.shape[2:] == (height, width):
        return pixels
    # uint8 in this memory layout takes torch's vectorised path: measured 7 times as fast as float32.
    return F.interpolate(pixels, size=(height, width), mode="bilinear", antialias=True)
