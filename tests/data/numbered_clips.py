"""Tiny real media whose every frame says in its pixels which video and which frame it is, and splits of them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
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


def draw_frame(video: int, frame: int, size: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    """(*size, 3) uint8: stripes, white for 1: the bits of ``video`` in the upper half, of ``frame`` in the lower."""
    rows = np.array([[255 * (number >> bit & 1) for bit in range(_BITS)] for number in (video, frame)], dtype=np.uint8)
    height, width = size
    stripes = rows[np.arange(height) * 2 // height][:, np.arange(width) * _BITS // width]
    return np.repeat(stripes[:, :, None], 3, axis=2)


def read_frame_numbers(frames: np.ndarray) -> list[tuple[int, int]]:
    """(video, frame) of each decoded frame (T, H, W, 3) uint8, from the middle of each stripe."""
    _, height, width, _ = frames.shape
    rows, columns = (np.array([1, 3]) * height // 4), ((2 * np.arange(_BITS) + 1) * width // (2 * _BITS))
    bits = frames[:, rows][:, :, columns].mean(-1) > 127
    return [(int(video), int(frame)) for video, frame in (bits * (1 << np.arange(_BITS))).sum(-1)]


def read_numbers(pixels: Tensor) -> list[tuple[int, int]]:
    """(video, frame) of each frame of a normalised, uncropped clip (3, T, 64, 64)."""
    grey = (pixels * np.array(STD)[:, None, None, None] + np.array(MEAN)[:, None, None, None]).mean(0).numpy()
    cells = grey.reshape(len(grey), 2, SIDE // 2, _BITS, SIDE // _BITS).mean((2, 4)) > 0.5
    numbers = (cells * (1 << np.arange(_BITS))).sum(-1)
    return [(int(video), int(frame)) for video, frame in numbers]


def encode_video(
    video: int,
    frames: int,
    fps: int = 16,
    *,
    container: str = "mp4",
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (SIDE, SIDE),
    options: dict[str, str] | None = None,
    movflags: str = "",
    times: Sequence[int] | None = None,
    skip: int = 0,
    rotation: int = 0,
    noise: int = 0,
) -> bytes:
    """Numbered frames, by default an .mp4 of H.264 with B-frames and a key frame every 12.

    times: presentation times in frames, of frames that are not evenly spaced; skip: so many frames lie before time 0
    (an edit list leaves them out); rotation: degrees counter-clockwise by which players are to turn the frames;
    noise: amplitude of grey noise over the frames, so that they take as many bits as real ones.
    """
    buffer, rng = io.BytesIO(), np.random.default_rng(video)
    with av.open(buffer, "w", format=container, options={"movflags": movflags} if movflags else {}) as file:
        stream = file.add_stream(codec, rate=fps)
        stream.height, stream.width = size
        stream.pix_fmt = pix_fmt
        stream.options = {"crf": "20", "g": "12", "bf": "2", "threads": "1"} | (options or {})
        if rotation:
            stream.set_display_rotation(rotation)
        for frame in range(frames):
            drawn = draw_frame(video, frame, size).astype(np.int16) + rng.integers(-noise, noise + 1, (*size, 1))
            picture = av.VideoFrame.from_ndarray(drawn.clip(0, 255).astype(np.uint8), format="rgb24")
            picture.pts = frame if times is None else times[frame]
            picture.time_base = Fraction(1, fps)
            _mux(file, stream.encode(picture), skip, fps)
        _mux(file, stream.encode(), skip, fps)
    return buffer.getvalue()


def _mux(file: av.container.OutputContainer, packets: list[av.Packet], skip: int, fps: int) -> None:
    for packet in packets:
        shift = round(Fraction(skip, fps) / packet.time_base)
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        file.mux(packet)


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
