"""Pixels to files: H.264 in MP4 for clips, JPEG for stills; the same pixels always give the same bytes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmjepa.data.h264 import x264_options
from mmjepa.errors import UserError


@dataclass
class EncodingOptions:
    """Quality of the stored files."""

    crf: int = 18  # x264's constant rate factor: 0 is lossless, 51 the worst
    gop: int = 12  # frames from one key frame to the next; short, since random access decodes from a key frame
    jpeg_quality: int = 90

    def __post_init__(self) -> None:
        """Refuse values that the encoders do not know."""
        if not 0 <= self.crf <= 51:
            raise UserError(f"encoding.crf={self.crf}: must lie in 0..51")
        if self.gop < 1:
            raise UserError(f"encoding.gop={self.gop}: must be positive")
        if not 1 <= self.jpeg_quality <= 100:
            raise UserError(f"encoding.jpeg_quality={self.jpeg_quality}: must lie in 1..100")


def encode_clip(clip: NDArray[np.uint8], fps: int, options: EncodingOptions) -> bytes:
    """An MP4 file of frames (T, H, W, 3) uint8 RGB; H and W even."""
    buffer = io.BytesIO()
    # "bitexact" keeps library versions out of the container.
    with av.open(buffer, mode="w", format="mp4", options={"fflags": "+bitexact"}) as file:
        stream = file.add_stream("libx264", rate=fps)
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, fps)
        # With the tree as ever, since without it every clip would be other bytes; at 64 x 64 it was the same each time.
        stream.options = x264_options(options.crf, options.gop, macroblock_tree=True)
        for number, pixels in enumerate(clip):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return buffer.getvalue()


def encode_still(image: NDArray[np.uint8], options: EncodingOptions) -> bytes:
    """A JPEG file of an image (H, W, 3) uint8 RGB."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=options.jpeg_quality)
    return buffer.getvalue()
