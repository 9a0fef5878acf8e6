"""Frame dropout: which frames of a video are lost, and what stands in their place.

Which frames are lost depends on (video id, seed) through a keyed hash, and on rate and pattern; never on the encoder or
the fill. So every encoder and every fill sees the same losses, and curves can be compared in pairs. A pattern is an
order in which frames are lost, and a rate takes the first k of it: the sets of lost frames are nested over rates.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmjepa.errors import UserError

# --- which frames are lost ------------------------------------------------------------------------------------------


def keyed_uniforms(key: str, seed: int, count: int) -> np.ndarray:
    """``count`` uniform numbers in [0, 1), a pure function of (key, seed).

    Uses the raw stream of a bit generator: NumPy guarantees that it stays the same over versions, which it does not
    for ``Generator`` methods such as ``permutation``.
    """
    digest = hashlib.blake2b(key.encode(), key=str(seed).encode(), digest_size=16).digest()
    raw = np.random.PCG64(int.from_bytes(digest, "little")).random_raw(count)
    return (raw >> np.uint64(11)) * 2.0**-53


def _random_order(uniforms: np.ndarray) -> np.ndarray:
    return np.argsort(uniforms, kind="stable")


def _burst_order(uniforms: np.ndarray) -> np.ndarray:
    """A contiguous block that grows around an anchor.

    It grows to the left with probability (frames left of it) / (frames outside it). This keeps the block's position
    uniform at every length; growing to both sides alike would favour the middle of the clip.
    """
    frames = len(uniforms)
    start = int(uniforms[0] * frames)
    order = [start]
    for length in range(1, frames):
        if uniforms[length] * (frames - length) < start:
            start -= 1
            order.append(start)
        else:
            order.append(start + length)
    return np.array(order)


def _periodic_order(uniforms: np.ndarray) -> np.ndarray:
    """Evenly spread losses from a random phase: indices in bit-reversed order, so that every prefix is spread out.

    Exactly periodic where the number of frames is a power of two and so is 1 / rate or 1 / (1 - rate).
    """
    frames = len(uniforms)
    bits = (frames - 1).bit_length()
    reversed_bits = [int(format(index, f"0{bits}b")[::-1], 2) for index in range(2**bits)]
    spread = np.array([index for index in reversed_bits if index < frames])
    return (spread + int(uniforms[0] * frames)) % frames


def _tail_order(uniforms: np.ndarray) -> np.ndarray:
    return np.arange(len(uniforms))[::-1]


# A pattern maps T uniform numbers to the order in which the T frames are lost.
PATTERNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "random": _random_order,
    "burst": _burst_order,
    "periodic": _periodic_order,
    "tail": _tail_order,
}


# --- what stands in their place -------------------------------------------------------------------------------------


def _last_received(kept: Tensor) -> Tensor:
    """(B, T) index of the last frame received up to each frame; before the first received frame, that first frame."""
    times = torch.arange(kept.shape[1], device=kept.device).expand_as(kept)
    last = torch.where(kept, times, -1).cummax(dim=1).values
    return torch.where(last < 0, kept.int().argmax(dim=1, keepdim=True), last)


def _take_frames(pixels: Tensor, index: Tensor) -> Tensor:
    """Frames (B, 3, T, H, W) re-ordered in time by ``index`` (B, T)."""
    rows = torch.arange(len(pixels), device=pixels.device)[:, None]
    return pixels[rows, :, index].transpose(1, 2).contiguous()


def _hold(pixels: Tensor, kept: Tensor) -> Tensor:
    return _take_frames(pixels, _last_received(kept))


def _blank(pixels: Tensor, kept: Tensor) -> Tensor:
    return torch.where(kept[:, None, :, None, None], pixels, 0.0)


def _interpolate(pixels: Tensor, kept: Tensor) -> Tensor:
    before = _last_received(kept)
    after = kept.shape[1] - 1 - _last_received(kept.flip(1)).flip(1)
    times = torch.arange(kept.shape[1], device=kept.device)
    # At the ends of the clip both neighbours are the same frame, so any weight holds it.
    weight = ((times - before) / (after - before).clamp(min=1))[:, None, :, None, None].to(pixels.dtype)
    earlier, later = _take_frames(pixels, before), _take_frames(pixels, after)
    return torch.where(kept[:, None, :, None, None], pixels, earlier + weight * (later - earlier))


def _compact(pixels: Tensor, kept: Tensor) -> Tensor:
    received_first = (~kept).int().argsort(dim=1, stable=True)
    received = kept.sum(dim=1, keepdim=True)
    places = torch.arange(kept.shape[1], device=kept.device) * received // kept.shape[1]
    return _take_frames(pixels, received_first.gather(1, places))


# A pixel fill maps normalised pixels (B, 3, T, H, W) and received frames (B, T) to pixels of the same shape.
PIXEL_FILLS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "hold": _hold,
    "blank": _blank,
    "interpolate": _interpolate,
    "compact": _compact,
}
# Fills the encoder itself carries out on tokens, from the frame mask it is given.
LATENT_FILLS = ("mask", "predict")
FILLS = (*PIXEL_FILLS, *LATENT_FILLS)


# --- the condition --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DropoutCondition:
    """One condition of frame loss; a pure function of (video id, condition).

    rate: share of frames lost, in [0, 1] (one frame always survives). pattern: a key of ``PATTERNS``.
    fill: one of ``FILLS``. seed: draws the losses, together with the video id.
    Raises UserError on a rate outside [0, 1] and on unknown names.
    """

    rate: float
    pattern: str
    fill: str
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.rate <= 1.0:
            raise UserError(f"dropout rate {self.rate:g} is not a share of frames: give a number from 0 to 1")
        if self.pattern not in PATTERNS:
            raise UserError(f"unknown dropout pattern '{self.pattern}': choose from {', '.join(PATTERNS)}")
        if self.fill not in FILLS:
            raise UserError(f"unknown fill '{self.fill}': choose from {', '.join(FILLS)}")

    def lost(self, frames: int) -> int:
        """Number of frames lost out of ``frames``: rate * frames rounded half up, at most ``frames`` - 1."""
        # The inner rounding keeps a product such as 0.29 * 50 = 14.499999999999998 on the side it belongs to.
        return min(math.floor(round(self.rate * frames, 9) + 0.5), frames - 1)


def kept_frames(video_id: str, frames: int, condition: DropoutCondition) -> np.ndarray:
    """Which of ``frames`` frames are received: bool (T,), True = received, at least one."""
    if frames < 1:
        raise ValueError(f"a clip needs at least one frame, got {frames}")
    order = PATTERNS[condition.pattern](keyed_uniforms(video_id, condition.seed, frames))
    kept = np.ones(frames, dtype=bool)
    kept[order[: condition.lost(frames)]] = False
    return kept


def kept_batch(video_ids: Sequence[str], frames: int, condition: DropoutCondition) -> Tensor:
    """:func:`kept_frames` of a batch of videos: bool tensor (B, T)."""
    return torch.from_numpy(np.stack([kept_frames(video_id, frames, condition) for video_id in video_ids]))


def apply_fill(pixels: Tensor, kept: Tensor, fill: str) -> Tensor:
    """Normalised pixels (B, 3, T, H, W) with the frames that ``kept`` (B, T) marks as lost replaced.

    * ``hold``: the last frame received; frames before the first received one take that first one.
    * ``blank``: zeros. Pixels are normalised, so this is the mean colour of the encoder's training data; black would
      be a different value for every encoder.
    * ``interpolate``: linear in time between the received neighbours; beyond the first and last received frame, hold.
    * ``compact``: the received frames re-timed evenly over the clip; true positions are lost.
    * ``mask``, ``predict``: as ``hold``. The encoder skips tubelets that lost every frame, so
      held frames are only seen inside tubelets of which a part was received.

    Frames received keep their exact values (``compact`` may move them); with no loss the clip is returned unchanged.
    """
    if fill not in FILLS:
        raise UserError(f"unknown fill '{fill}': choose from {', '.join(FILLS)}")
    if kept.shape != (pixels.shape[0], pixels.shape[2]):
        raise ValueError(f"kept {tuple(kept.shape)} does not fit pixels {tuple(pixels.shape)}: expected (B, T)")
    if not bool(kept.any(dim=1).all()):
        raise ValueError("every clip needs at least one frame received")
    return PIXEL_FILLS.get(fill, _hold)(pixels, kept.to(pixels.device))
