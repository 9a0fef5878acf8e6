"""Which frames of a video make a clip."""

from __future__ import annotations

import numpy as np


def random_window(count: int, frames: int, stride: int, generator: np.random.Generator) -> np.ndarray:
    """Indices (frames,) of every ``stride``-th frame from a random start in a video of ``count`` frames.

    The start is uniform over those for which the window fits. In a shorter video the window starts at 0 and indices
    beyond the end stay beyond it: see :func:`hold_last`.
    """
    span = (frames - 1) * stride + 1
    start = int(generator.integers(max(count - span, 0) + 1))
    return start + stride * np.arange(frames)


def spread_evenly(count: int, frames: int) -> np.ndarray:
    """Indices (frames,) from the first to the last of ``count`` frames, evenly; 0, 1, 2, ... in a shorter video."""
    if count < frames:
        return np.arange(frames)
    return np.linspace(0, count - 1, frames).round().astype(np.int64)


def hold_last(indices: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(indices within the video, mask): indices beyond the last frame become the last frame, and False in the mask."""
    valid = indices < count
    return np.minimum(indices, count - 1), valid
