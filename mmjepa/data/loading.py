"""From a stored sample to clips, and worker processes that do so ahead of time, in a fixed order."""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmjepa.data.clips import hold_last
from mmjepa.data.decoding import decode
from mmjepa.data.samples import Clip
from mmjepa.data.shards import ShardedSplit

T = TypeVar("T")
PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


def ordered_loader(batches: Dataset, requests: Iterable[Any], workers: int, prefetch: int) -> DataLoader:
    """Yields ``batches[request]`` for each request, in order, whatever the number of workers (0: in this process)."""
    if workers:
        atexit.register(_end_workers)  # runs before multiprocessing's own handler, which would wait for them
    return DataLoader(
        batches,
        batch_size=None,  # a request is a whole batch
        sampler=requests,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        collate_fn=_as_is,
        worker_init_fn=partial(_prepare_worker, os.getpid()),
        pin_memory=torch.cuda.is_available(),
        # Its own generator: the loader would otherwise advance torch's global one each time it starts.
        generator=torch.Generator(),
    )


def _prepare_worker(parent: int, worker: int) -> None:
    _end_with_parent(parent)
    _leave_requests_to_trainer()


def _leave_requests_to_trainer() -> None:
    """Ignore SIGTERM and SIGUSR1.

    Launchers and schedulers signal all processes of a run, some of them twice; without its workers the trainer could
    not reach the step at which it saves. It ends them itself (:func:`_end_workers`), or they end with it.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def _end_workers() -> None:
    """On the way out: end workers that have not left by themselves, deaf to SIGTERM as they are."""
    for process in multiprocessing.active_children():
        process.kill()


def _end_with_parent(parent: int) -> None:
    """Have the kernel end this worker when the training process ends, even by SIGKILL.

    Otherwise a worker whose queue is full waits for ever, and keeps what it inherited: the rendezvous port that the
    next start of the same command needs. Other systems than Linux have no such call; torch's own watchdog must do.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the call
            os._exit(1)


def _as_is(batch: T) -> T:
    return batch


def cut_clips(
    split: ShardedSplit,
    sample: int,
    choose: Sequence[Callable[[int], np.ndarray]],
    transform: Sequence[Callable[[Tensor], Tensor]],
) -> list[Clip]:
    """Open one sample once and cut one clip per pair of ``choose`` and ``transform``.

    choose: frame count of the video -> indices (T,), which may point beyond its end: there the last frame is held and
    masked. transform: frames (T, H, W, 3) uint8 -> pixels (3, T, H', W') float32. Raises UnusableSample.
    """
    stored = split.read(sample)
    masks: list[np.ndarray] = []

    def indices_within(count: int) -> np.ndarray:
        wanted, mask = hold_last(np.stack([chosen(count) for chosen in choose]), count)
        masks[:] = mask  # asked again if the decoder counts other frames than the file declares
        return wanted

    decoded = decode(stored, indices_within)
    return [
        Clip(apply(pixels), timestamps, torch.from_numpy(mask), stored.key, stored.meta)
        for apply, pixels, timestamps, mask in zip(transform, decoded.pixels, decoded.timestamps, masks, strict=True)
    ]
