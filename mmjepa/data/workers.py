"""Worker processes that decode ahead of time, in a fixed order, and outlive the files that bring one of them down.

A file can crash a decoder, or keep it busy for ever inside a call that no exception reaches. So every worker notes in
shared memory which sample it is decoding and since when. A worker that is overdue is killed; when one has ended, its
sample is refused from then on, and the workers are started anew with the requests that were not answered yet. While
all goes well this costs three numbers written per sample.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from mmjepa.data import video
from mmjepa.data.loading import cut_clips
from mmjepa.data.samples import Clip, UnusableSample
from mmjepa.data.shards import ShardedSplit

log = logging.getLogger(__name__)

T = TypeVar("T")
PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>
_PID, _SPLIT, _SAMPLE, _BEGAN = range(4)
_HANG = -1000  # beside exit codes, which are signals below zero


class WatchedWork(Dataset):
    """Base of what workers compute, request -> result: whatever a file could crash or hang lies within :meth:`noted`.

    Samples are named (split, number). ``pinned``: results go through page-locked memory if there is a GPU.
    """

    pinned = False

    def __init__(self) -> None:
        self._refused: dict[tuple[int, int], str] = {}
        self._suspects: set[tuple[int, int]] = set()
        self._notes = torch.zeros(0, 4, dtype=torch.int64)

    @property
    def overdue_seconds(self) -> float:
        """How long one sample may take before its worker is killed."""
        raise NotImplementedError

    def check_refused(self, split: int, sample: int) -> None:
        """Raise UnusableSample if the sample brought a worker down before."""
        if (split, sample) in self._refused:
            raise UnusableSample(self._refused[split, sample])

    @contextlib.contextmanager
    def noted(self, split: int, sample: int) -> Iterator[None]:
        """Blame what ends or hangs the worker in here on this sample."""
        worker = get_worker_info()
        if worker is None:  # no worker process: nobody could end this one
            yield
            return
        note = self._notes[worker.id]
        note[:] = torch.tensor([os.getpid(), split, sample, time.monotonic_ns()])
        try:
            yield
        finally:
            note[_BEGAN] = 0

    def watch(self, workers: int) -> Tensor:
        """Fresh notes for so many workers: (workers, 4) int64, shared: process, split, sample, and when it began."""
        self._notes = torch.zeros(workers, 4, dtype=torch.int64).share_memory_()
        return self._notes

    def blame(self, exits: dict[int, int]) -> bool:
        """Refuse the samples that ended processes ({process: exit code}) were at; False if none was at any."""
        blamed = False
        for pid, split, sample, began in self._notes.tolist():
            if not began or not exits.get(pid):
                continue
            blamed, name = True, (split, sample)
            # SIGKILL from elsewhere (an operator, the kernel short of memory) may be no fault of the sample: once.
            if exits[pid] == -signal.SIGKILL and name not in self._suspects:
                self._suspects.add(name)
            else:
                self._refused[name] = self._reason(exits[pid])
        return blamed

    def _reason(self, code: int) -> str:
        if code == _HANG:
            return f"decoding did not end within {self.overdue_seconds:.0f} s"
        return f"decoding ended the worker process ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"


class DecodingBatches(WatchedWork):
    """Base of what workers compute for training and evaluation: batches, by :meth:`cut` from samples of ``splits``.

    decoder: of videos, see :data:`mmjepa.data.decoding.READERS`.
    """

    pinned = True

    def __init__(self, splits: Sequence[ShardedSplit], decoder: str = "pyav") -> None:
        super().__init__()
        self.splits = splits
        self._decoder = decoder

    @property
    def overdue_seconds(self) -> float:
        """Later than the decoder gives up by itself, where it still can."""
        return 1.5 * video.DECODE_SECONDS

    def cut(
        self,
        split: int,
        sample: int,
        choose: Sequence[Callable[[int], np.ndarray]],
        transform: Sequence[Callable[[Tensor], Tensor]],
    ) -> list[Clip]:
        """One clip of ``sample`` per pair of ``choose`` and ``transform``: see :func:`cut_clips`.

        Raises UnusableSample, also if the sample brought a worker down before.
        """
        self.check_refused(split, sample)
        stored = self.splits[split].read(sample)
        with self.noted(split, sample):
            return cut_clips(stored, choose, transform, self._decoder)


class _Requests:
    """The requests in order; iterated again, those without an answer come first."""

    def __init__(self, requests: Iterable[Any]) -> None:
        self._coming = iter(requests)
        self._unanswered: deque[Any] = deque()

    def __iter__(self) -> Iterator[Any]:
        yield from list(self._unanswered)
        for request in self._coming:
            self._unanswered.append(request)
            yield request

    def answered(self) -> None:
        """The first request without an answer has got one."""
        self._unanswered.popleft()


def ordered_batches(
    batches: WatchedWork, requests: Iterable[Any], workers: int, prefetch: int
) -> Generator[Any, None, None]:
    """Yields ``batches[request]`` for each request, in order, whatever the number of workers (0: in this process).

    Samples that end or hang a worker are refused from then on, as if they were damaged. Raises RuntimeError if a worker
    ends for another reason.
    """
    if workers:
        atexit.register(_end_workers)  # runs before multiprocessing's own handler, which would wait for them
    waiting = _Requests(requests)
    while True:
        with _Crew(batches, waiting, workers, prefetch) as crew:
            try:
                for batch in crew.batches:
                    waiting.answered()
                    yield batch
                return
            # How the loader says that a worker has ended; or how it shows that one has whose batch was on its way.
            except (RuntimeError, OSError, EOFError) as error:
                exits = crew.exits(wait=1.0)
                if not exits:
                    raise
                if not batches.blame(exits):
                    codes = sorted(set(exits.values()))
                    raise RuntimeError(f"decoding workers exited unexpectedly (exit codes {codes})") from error
                log.warning("decoding workers ended (%s): starting them anew", sorted(set(exits.values())))


class _Crew:
    """The workers of one start, and the thread that kills those that are overdue."""

    def __init__(self, batches: WatchedWork, requests: Iterable[Any], workers: int, prefetch: int) -> None:
        self._work, self._notes = batches, batches.watch(workers)
        loader = DataLoader(
            batches,
            batch_size=None,  # a request is a whole batch
            sampler=requests,
            num_workers=workers,
            prefetch_factor=prefetch if workers else None,
            collate_fn=_as_is,
            worker_init_fn=partial(_prepare_worker, os.getpid()),
            pin_memory=batches.pinned and torch.cuda.is_available(),
            # Its own generator: the loader would otherwise advance torch's global one each time it starts.
            generator=torch.Generator(),
        )
        others, handler = multiprocessing.active_children(), signal.getsignal(signal.SIGCHLD)
        self.batches = iter(loader)
        if threading.current_thread() is threading.main_thread():
            # The loader's handler would raise when a worker ends, wherever the training step happens to be.
            signal.signal(signal.SIGCHLD, handler)
        self._processes: list[BaseProcess] = [p for p in multiprocessing.active_children() if p not in others]
        self._overdue: set[int] = set()
        self._done = threading.Event()
        self._watch = threading.Thread(target=self._kill_overdue, daemon=True)

    def __enter__(self) -> _Crew:
        if self._processes:
            self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self.exits():  # the others wait for nobody
            for process in self._processes:
                process.kill()
        del self.batches  # ends the workers now: the traceback of an error would keep them alive

    def _kill_overdue(self) -> None:
        seconds = self._work.overdue_seconds
        while not self._done.wait(min(1.0, seconds / 4)):
            for pid, _, _, began in self._notes.tolist():
                if began and time.monotonic_ns() - began > 1e9 * seconds and pid not in self._overdue:
                    for process in self._processes:
                        # One that has crashed meanwhile, which is noticed some seconds later, has not hung.
                        if process.pid == pid and not connection.wait([process.sentinel], timeout=0):
                            self._overdue.add(pid)
                            process.kill()

    def exits(self, wait: float = 0.0) -> dict[int, int]:
        """Exit codes by process of the workers that have ended, or do so within ``wait`` seconds."""
        ended = connection.wait([process.sentinel for process in self._processes], timeout=wait)
        for process in self._processes:
            if process.sentinel in ended:
                process.join(1.0)  # its files close a moment before it has an exit code
        codes = {p.pid: p.exitcode for p in self._processes if p.pid is not None and p.exitcode is not None}
        return {pid: _HANG if pid in self._overdue else code for pid, code in codes.items()}


def _prepare_worker(parent: int, worker: int) -> None:
    _end_with_parent(parent)
    _leave_requests_to_trainer()
    # A thread of the worker hands finished batches over: let it do so without long waits for the decoding one.
    sys.setswitchinterval(0.0005)


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
