"""Tiny real media whose every frame says in its pixels which video and which frame it is, and splits of them."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
from PIL import Image
from torch import Tensor

from mmjepa.data.manifest import Provenance, ShardSetWriter
from mmjepa.data.samples import Sample

SIDE = 64
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
_BITS = 8


def draw_frame(video: int, frame: int) -> np.ndarray:
    """(64, 64, 3) uint8: stripes, white for 1: the bits of ``video`` in the upper half, of ``frame`` in the lower."""
    rows = [[255 * (number >> bit & 1) for bit in range(_BITS)] for number in (video, frame)]
    stripes = np.repeat(np.repeat(np.array(rows, dtype=np.uint8), SIDE // 2, axis=0), SIDE // _BITS, axis=1)
    return np.repeat(stripes[:, :, None], 3, axis=2)


def read_numbers(pixels: Tensor) -> list[tuple[int, int]]:
    """(video, frame) of each frame of a normalised, uncropped clip (3, T, 64, 64)."""
    grey = (pixels * np.array(STD)[:, None, None, None] + np.array(MEAN)[:, None, None, None]).mean(0).numpy()
    cells = grey.reshape(len(grey), 2, SIDE // 2, _BITS, SIDE // _BITS).mean((2, 4)) > 0.5
    numbers = (cells * (1 << np.arange(_BITS))).sum(-1)
    return [(int(video), int(frame)) for video, frame in numbers]


def encode_video(video: int, frames: int, fps: int = 16) -> bytes:
    """An .mp4 of numbered frames, H.264 with B-frames and a key frame every 12."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "20", "g": "12", "bf": "2", "threads": "1"}
        for frame in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(draw_frame(video, frame), format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def encode_image(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(draw_frame(number, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


def video_sample(number: int, frames: int = 32) -> Sample:
    return Sample(f"clip-{number:03d}", encode_video(number, frames), "mp4", {"label": number})


def image_sample(number: int) -> Sample:
    return Sample(f"still-{number:03d}", encode_image(number), "png", {"label": number})


def write_split(folder: Path, samples: Iterable[Sample], kind: str = "video", samples_per_shard: int = 4) -> Path:
    provenance = Provenance("tests", {}, 0, {}, "none")
    with ShardSetWriter(
        folder, name="t", split=folder.name, kind=kind, provenance=provenance, samples_per_shard=samples_per_shard
    ) as writer:
        for sample in samples:
            writer.write(sample)
    return folder
