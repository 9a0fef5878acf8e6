"""What flows through the data path: samples as stored, clips as decoded, batches of clips, and failures by name."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmjepa.data.augmentation import Normalise

VIDEO_SUFFIXES = frozenset({"mp4", "webm", "mkv", "avi", "mov"})
IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "png"})


class UnusableSample(Exception):
    """One sample cannot be read or decoded. The message is the reason; the sample is skipped, the run goes on."""


@dataclass(frozen=True)
class Sample:
    """One entry of a shard: the undecoded ``media`` file, its ``suffix`` without dot, and ``meta``, its parsed JSON."""

    key: str
    media: bytes
    suffix: str
    meta: dict[str, Any]


CHECKSUM = "crc32"
"""Where the JSON of a sample in a shard holds its :func:`checksum`; readers take it out."""


def checksum(media: bytes, meta: dict[str, Any]) -> int:
    """CRC-32 of a sample, its JSON without the checksum. Many a flipped bit makes a valid file with a wrong picture."""
    text = json.dumps(meta, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return zlib.crc32(text.encode(), zlib.crc32(media))


def checksum_holds(expected: Any, media: bytes, stored: bytes, meta: dict[str, Any]) -> bool:
    """Whether :func:`checksum` gives ``expected``; ``stored``: the JSON as it lies in the shard, ``meta``: as parsed.

    The writer stores the text that the checksum is of, with the checksum among its keys: taken out of the bytes, it
    spares writing the JSON anew. Shards whose JSON is laid out otherwise are checked the long way.
    """
    text = stored.replace(f'"{CHECKSUM}":{expected},'.encode(), b"", 1)
    return zlib.crc32(text, zlib.crc32(media)) == expected or checksum(media, meta) == expected


@dataclass(frozen=True)
class Failure:
    """Data that was skipped: one sample of a shard, or (``key`` None) the shard itself, and why."""

    shard: str
    key: str | None
    reason: str


@dataclass(frozen=True)
class Clip:
    """One decoded, augmented clip: pixels (3, T, H, W) uint8, timestamps (T,) float32 in s, frame_mask (T,) bool."""

    pixels: Tensor
    timestamps: Tensor
    frame_mask: Tensor
    key: str
    meta: dict[str, Any]


@dataclass(frozen=True)
class ClipBatch:
    """Clips of equal shape. A batch of still images has T = 1; a batch never mixes stills and videos.

    stored (B, 3, T, H, W): uint8, from which ``normalise`` makes :attr:`pixels` (None: they are the pixels);
    timestamps (B, T) float32, seconds from the start of the video; frame_mask (B, T) bool, False where a frame only
    repeats the last one of a video that is too short; ``failures``: what was met and skipped on the way to this batch.
    """

    stored: Tensor
    timestamps: Tensor
    frame_mask: Tensor
    metas: list[dict[str, Any]]
    keys: list[str]
    failures: tuple[Failure, ...] = ()
    normalise: Normalise | None = None

    @cached_property
    def pixels(self) -> Tensor:
        """(B, 3, T, H, W) float32, normalised.

        Made where and when they are first asked for: until then a batch travels, from its worker through shared and
        page-locked memory to the device, at a quarter of the size.
        """
        return self.stored if self.normalise is None else self.normalise(self.stored)

    @property
    def frames(self) -> int:
        """T."""
        return self.stored.shape[2]

    @classmethod
    def collate(cls, clips: Sequence[Clip], normalise: Normalise, failures: Sequence[Failure] = ()) -> ClipBatch:
        """Stack clips of equal shape (at least one)."""
        # In memory frame after frame, colours last, as resizing leaves them: copied eight times as fast.
        frames = torch.stack([clip.pixels.permute(1, 2, 3, 0) for clip in clips])
        return cls(
            stored=frames.permute(0, 4, 1, 2, 3),
            timestamps=torch.stack([clip.timestamps for clip in clips]),
            frame_mask=torch.stack([clip.frame_mask for clip in clips]),
            metas=[clip.meta for clip in clips],
            keys=[clip.key for clip in clips],
            failures=tuple(failures),
            normalise=normalise,
        )

    def __len__(self) -> int:
        return len(self.keys)

    def __reduce__(self) -> tuple[Any, ...]:
        # A tensor goes from a worker through shared memory, which takes several turns with the decoding thread, each of
        # up to some ms: worth it for the pixels. The small ones go as bytes.
        small = self.timestamps.numpy(), self.frame_mask.numpy()
        return _unpickled, (self.stored, *small, self.metas, self.keys, self.failures, self.normalise)

    def pin_memory(self) -> ClipBatch:
        """The batch in page-locked memory; torch's DataLoader calls this by name."""
        return replace(
            self,
            stored=self.stored.pin_memory(),
            timestamps=self.timestamps.pin_memory(),
            frame_mask=self.frame_mask.pin_memory(),
        )

    def to(self, device: torch.device | str) -> ClipBatch:
        """The batch on ``device``, without waiting for the copy when the batch is pinned."""
        return replace(
            self,
            stored=self.stored.to(device, non_blocking=True),
            timestamps=self.timestamps.to(device, non_blocking=True),
            frame_mask=self.frame_mask.to(device, non_blocking=True),
        )


def _unpickled(stored: Tensor, timestamps: np.ndarray, frame_mask: np.ndarray, *others: Any) -> ClipBatch:
    return ClipBatch(stored, torch.from_numpy(timestamps), torch.from_numpy(frame_mask), *others)
