"""Processes that measure readers of data, each by itself: time by the clock and of processors, memory."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


class Reader:
    """One way of getting clips: ``read`` (at least so many) returns how many came; its workers and this process."""

    def __init__(self, read: Callable[[int], int]) -> None:
        read(1)  # starts the workers
        self.read = read
        self.processes = [os.getpid(), *(one.pid for one in multiprocessing.active_children() if one.pid is not None)]

    def measure(self, ready: int, clips: int) -> tuple[float, float]:
        """Clips a second, and clips a second of processor time; not counting the ``ready`` first ones."""
        self.read(ready)
        began, used = time.perf_counter(), sum(map(processor_seconds, self.processes))
        count = self.read(clips)
        took = time.perf_counter() - began
        spent = sum(map(processor_seconds, self.processes)) - used
        return count / took, count / max(spent, 1 / os.sysconf("SC_CLK_TCK"))  # what processor time is counted in


class Place:
    """A process of its own that measures, as each reader has where it is used: in a common one they would spoil each
    other's heap."""

    def __init__(self, serve: Callable[[Connection], None]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, there = context.Pipe()
        self._process = context.Process(target=_until_told_to_end, args=(serve, there))
        self._process.start()
        there.close()

    def ask(self, *question: int) -> Any:
        """The answer to a question. Raises RuntimeError if the process has ended, with an error that it has printed."""
        try:
            self._connection.send(question)
            return self._connection.recv()
        except (EOFError, BrokenPipeError) as error:
            raise RuntimeError("a process that measures has ended; what it printed says why") from error

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()
        self._process.join()


def _until_told_to_end(serve: Callable[[Connection], None], connection: Connection) -> None:
    """``serve`` until the other end is closed; then end at once, with the workers and without their farewells."""
    with contextlib.suppress(EOFError):
        serve(connection)
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(0)


def serve_reader(start: Callable[[], Callable[[int], int]], connection: Connection) -> None:
    """Answer (clips to pass over, clips to time) by :meth:`Reader.measure` of the reader that ``start`` gives."""
    reader = Reader(start())
    while True:
        connection.send(reader.measure(*connection.recv()))


def processor_seconds(process: int) -> float:
    """Processor time that a process has used, all its threads. Linux only."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def megabytes(process: int | None) -> float:
    """Memory of a process; what processes share counts once over all of them. Linux only."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1e3
