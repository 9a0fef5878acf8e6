"""From a stored sample to clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from mmjepa.data.clips import hold_last
from mmjepa.data.decoding import decode
from mmjepa.data.samples import Clip, Sample


def cut_clips(
    stored: Sample,
    choose: Sequence[Callable[[int], np.ndarray]],
    transform: Sequence[Callable[[Tensor], Tensor]],
    decoder: str = "pyav",
) -> list[Clip]:
    """Decode one sample once and cut one clip per pair of ``choose`` and ``transform``.

    choose: frame count of the video -> indices (T,), which may point beyond its end: there the last frame is held and
    masked. transform: frames (T, H, W, 3) uint8 -> pixels (3, T, H', W') uint8. Raises UnusableSample.
    """
    masks: list[np.ndarray] = []

    def indices_within(count: int) -> np.ndarray:
        wanted, mask = hold_last(np.stack([chosen(count) for chosen in choose]), count)
        masks[:] = mask  # asked again if the decoder counts other frames than the file declares
        return wanted

    decoded = decode(stored, indices_within, decoder)
    return [
        Clip(apply(pixels), timestamps, torch.from_numpy(mask), stored.key, stored.meta)
        for apply, pixels, timestamps, mask in zip(transform, decoded.pixels, decoded.timestamps, masks, strict=True)
    ]
