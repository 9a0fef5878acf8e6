"""Media bytes to frames: videos through decord, still images through Pillow.

decord is only ever given a path: on some damaged files it crashes the whole process when it reads from memory, and on
none that were tried when it reads from a file. The file lies in shared memory, which costs nothing measurable.
:func:`decode` is the one place where a decoder is chosen by file.
"""

from __future__ import annotations

import io
import re
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import decord
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from mmjepa.data.samples import IMAGE_SUFFIXES, Sample, UnusableSample

# Damaged streams make FFmpeg print many lines per file; failures are reported by name in the quarantine file instead.
decord.logging.set_level(decord.logging.QUIET)

_SHARED_MEMORY = Path("/dev/shm")
_FOLDER = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None

ChooseFrames = Callable[[int], np.ndarray]
"""Frame count of a media file -> wanted frame indices, of any shape."""


@dataclass(frozen=True)
class Frames:
    """Decoded frames: pixels (..., H, W, 3) uint8 RGB, timestamps (...) float32 in s; ... is the shape asked for."""

    pixels: Tensor
    timestamps: Tensor


def decode(sample: Sample, choose: ChooseFrames) -> Frames:
    """Open the media file once and decode the frames that ``choose`` asks for, each once however often it is wanted.

    A still image is a video of one frame at time 0. Raises UnusableSample with the decoder's reason if the file is
    damaged or holds no frames.
    """
    if sample.suffix in IMAGE_SUFFIXES:
        return _decode_image(sample.media, choose)
    # Outside any handler of decoding errors: a full disk is not the sample's fault.
    with tempfile.NamedTemporaryFile(dir=_FOLDER, prefix="mmjepa-", suffix=f".{sample.suffix}") as file:
        file.write(sample.media)
        file.flush()
        return _decode_video(file.name, choose)


def _decode_video(path: str, choose: ChooseFrames) -> Frames:
    try:
        reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
        if len(reader) < 1:
            raise UnusableSample("video without frames")
        wanted = choose(len(reader))
        indices, inverse = np.unique(wanted, return_inverse=True)
        pixels = reader.get_batch(indices).asnumpy()
        timestamps = reader.get_frame_timestamp(indices)[:, 0]
    except (decord.DECORDError, RuntimeError) as error:  # decord raises both
        raise UnusableSample(_reason(str(error), path)) from error
    if not np.isfinite(timestamps).all():
        raise UnusableSample("video without valid timestamps")
    return _gather(torch.from_numpy(pixels), torch.from_numpy(timestamps), inverse.reshape(wanted.shape))


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


def _reason(message: str, path: str) -> str:
    """The first line of a decord message, without the time, the place in decord's source and the temporary ``path``."""
    line = message.strip().split("\n", maxsplit=1)[0]
    return re.sub(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ", "", line).replace(path, "the file") or "decord gives no reason"
