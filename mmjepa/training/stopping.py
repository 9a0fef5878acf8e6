"""A scheduler's request to stop: the run saves and ends, and the same command continues it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
import torch.distributed as dist

STOPPED_EXIT_CODE = 75
"""EX_TEMPFAIL of <sysexits.h>: not finished, start it again."""
REQUESTS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Whether this rank was asked to stop."""

    def __init__(self) -> None:
        self.name: str | None = None

    def on_any_rank(self, device: torch.device) -> bool:
        """Whether any rank was asked. Called on every rank at the same step, so that all stop together."""
        asked = torch.tensor(float(self.name is not None), device=device)
        dist.all_reduce(asked, dist.ReduceOp.MAX)
        return bool(asked)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Note SIGTERM and SIGUSR1 inside the block instead of ending the process."""
    request = StopRequest()
    before = {number: signal.signal(number, request._note) for number in REQUESTS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
