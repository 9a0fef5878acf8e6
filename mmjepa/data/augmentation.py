"""Frames to network input: crop, resize, flip and normalise, the same for all frames of a clip."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_CROP_TRIES = 10


class TrainTransform:
    """Random resized crop and horizontal flip (as in V-JEPA: area and log-uniform aspect), then normalisation.

    area: range of the crop's share of the frame; aspect: range of width / height; flip: probability of mirroring left
    and right, which must be 0 where directions carry meaning; mean, std: per channel, of pixels in [0, 1].
    """

    def __init__(
        self,
        resolution: int,
        area: Sequence[float],
        aspect: Sequence[float],
        flip: float,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self._resolution, self._flip = resolution, flip
        self._area, self._log_aspect = (area[0], area[1]), (math.log(aspect[0]), math.log(aspect[1]))
        self._normalise = Normalise(mean, std)

    def __call__(self, frames: Tensor, generator: np.random.Generator) -> Tensor:
        """(T, H, W, 3) uint8 -> (3, T, resolution, resolution) float32, by draws from ``generator`` alone."""
        top, left, height, width = self._crop(frames.shape[1], frames.shape[2], generator)
        crop = frames[:, top : top + height, left : left + width]
        pixels = resize(crop, self._resolution, self._resolution)
        if generator.random() < self._flip:
            pixels = pixels.flip(-1)
        return self._normalise(pixels)

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
    """Resize the short side to ``resolution``, crop the centre, normalise. No randomness."""

    def __init__(self, resolution: int, mean: Sequence[float], std: Sequence[float]) -> None:
        self._resolution = resolution
        self._normalise = Normalise(mean, std)

    def __call__(self, frames: Tensor) -> Tensor:
        """(T, H, W, 3) uint8 -> (3, T, resolution, resolution) float32."""
        side, (height, width) = self._resolution, frames.shape[1:3]
        scale = side / min(height, width)
        pixels = resize(frames, max(round(height * scale), side), max(round(width * scale), side))
        top, left = (pixels.shape[2] - side) // 2, (pixels.shape[3] - side) // 2
        return self._normalise(pixels[:, :, top : top + side, left : left + side])


class Normalise:
    """(T, 3, H, W) uint8 -> (3, T, H, W) float32: (pixel / 255 - mean) / std per channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self._scale = (1 / (255 * torch.tensor(std, dtype=torch.float32))).view(3, 1, 1, 1)
        self._shift = (-torch.tensor(mean) / torch.tensor(std)).view(3, 1, 1, 1)

    def __call__(self, pixels: Tensor) -> Tensor:
        channels_first = pixels.transpose(0, 1).to(torch.float32, memory_format=torch.contiguous_format)
        return channels_first.mul_(self._scale).add_(self._shift)


def resize(frames: Tensor, height: int, width: int) -> Tensor:
    """(T, H, W, 3) uint8 -> (T, 3, height, width) uint8, bilinear, antialiased when it shrinks."""
    pixels = frames.permute(0, 3, 1, 2)
    if pixels.shape[2:] == (height, width):
        return pixels
    # uint8 in this memory layout takes torch's vectorised path: measured 7 times as fast as float32.
    return F.interpolate(pixels, size=(height, width), mode="bilinear", antialias=True)
