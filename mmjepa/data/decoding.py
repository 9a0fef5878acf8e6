"""Media bytes to frames: videos through PyAV or decord, still images through Pillow."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from mmjepa.data import decord_video, video
from mmjepa.data.samples import IMAGE_SUFFIXES, Sample, UnusableSample

ChooseFrames = Callable[[int], np.ndarray]
"""Frame count of a media file -> wanted frame indices, of any shape."""

READERS = {"pyav": video.read_frames, "decord": decord_video.read_frames}
"""Readers of videos by name: they give the same frames, and refuse damage as far as they see it."""


@dataclass(frozen=True)
class Frames:
    """Decoded frames: pixels (..., H, W, 3) uint8 RGB, timestamps (...) float32 in s; ... is the shape asked for."""

    pixels: Tensor
    timestamps: Tensor


def decode(sample: Sample, choose: ChooseFrames, decoder: str = "pyav") -> Frames:
    """Open the media file once and decode the frames that ``choose`` asks for, each once however often it is wanted.

    A still image is a video of one frame at time 0. decoder: of videos, one of READERS. Raises UnusableSample with the
    decoder's reason if the file is damaged or holds no frames.
    """
    if sample.suffix in IMAGE_SUFFIXES:
        return _decode_image(sample.media, choose)
    read = READERS[decoder](sample.media, choose)
    return _gather(torch.from_numpy(read.pixels), torch.from_numpy(read.seconds), read.inverse)


def _decode_image(data: bytes, choose: ChooseFrames) -> Frames:
    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError as error:
        raise UnusableSample("not an image") from error
    # All else that Pillow raises on damaged files: it has no common base class for them.
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise UnusableSample(f"damaged image: {error}") from error
    return _gather(torch.from_numpy(pixels.copy())[None], torch.zeros(1), choose(1))


def _gather(pixels: Tensor, timestamps: Tensor, index: np.ndarray) -> Frames:
    """Frames of the given index; no copy where every decoded frame is wanted once, in order."""
    if np.array_equal(index.ravel(), np.arange(len(pixels))):
        return Frames(pixels.view(*index.shape, *pixels.shape[1:]), timestamps.view(index.shape).float())
    chosen = torch.from_numpy(index)
    return Frames(pixels[chosen], timestamps[chosen].float())
