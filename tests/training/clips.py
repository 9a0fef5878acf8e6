"""A handful of real shards (drifting discs, H.264 .mp4, and .png stills) for the pretraining task's tests."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
from PIL import Image

from mmjepa.data.h264 import x264_options
from mmjepa.data.manifest import Provenance, ShardSetWriter
from mmjepa.data.samples import Sample

SIDE, FRAMES = 32, 12


def _frames(number: int) -> list[np.ndarray]:
    generator = np.random.default_rng(number)
    ground, colour = generator.integers(0, 255, (2, 3))
    start, velocity = generator.uniform(8, 24, 2), generator.uniform(-1.5, 1.5, 2)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    frames = []
    for time in range(FRAMES):
        y, x = start + velocity * time
        inside = (rows - y) ** 2 + (columns - x) ** 2 < 36
        frames.append(np.where(inside[..., None], colour, ground).astype(np.uint8))
    return frames


def _mp4(frames: list[np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=12)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.options = x264_options(20, 12)  # the same bytes every time: a test writes a data set twice
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def _png(frame: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="PNG")
    return buffer.getvalue()


def nano_settings(root: Path) -> list[str]:
    """Overrides of ``train.py`` for a run of seconds on the splits of ``root``: 4 frames of 32 x 32 pixels, FWM-HW-LD
    with its heads, motion-guided masks."""
    model = ["model=nano", "model.width=24", "model.depth=4", "model.heads=2", "model.frames=4", "model.patch=8"]
    model += [f"model.resolution={SIDE}", "model.predictor.width=24", "model.predictor.heads=2"]
    data = ["data=sprites", f"data.root={root}", "data.frames=4", "data.stride=1", f"data.resolution={SIDE}"]
    steps = ["steps=14", "batch_size=8", "optimizer.warmup_steps=2", "log.every=1", "checkpoint.every=4"]
    watch = ["health.every=7", "health.clips=4", "precision=fp32", "data.workers=0"]
    return ["objective=fwm_hw_ld", "masking=motion_guided", *model, *data, *steps, *watch]


def write_splits(root: Path, videos: int = 12, stills: int = 6) -> Path:
    """Write ``root``/motion-train, relations-train and appearance-train; returns ``root``."""
    provenance = Provenance("tests", {}, 0, {}, "none")
    for split, kind, numbers in (
        ("motion-train", "video", range(videos)),
        ("relations-train", "video", range(100, 100 + videos)),
        ("appearance-train", "image", range(200, 200 + stills)),
    ):
        with ShardSetWriter(
            root / split, name="discs", split=split, kind=kind, provenance=provenance, samples_per_shard=6
        ) as writer:
            for number in numbers:
                frames = _frames(number)
                media, suffix = (_mp4(frames), "mp4") if kind == "video" else (_png(frames[0]), "png")
                writer.write(Sample(f"disc-{number}", media, suffix, {"label": number % 4}))
    return root
