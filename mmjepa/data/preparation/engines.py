"""Where work runs: in this process, in processes of this machine, or on a Ray cluster. The work is the same code."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, TypeVar

from mmjepa.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], engine: str, processes: int
) -> Iterator[Result]:
    """Results of ``function`` on every task, as they are ready. ``function`` and tasks must be importable by name.

    ``processes`` is the number of tasks under way at once, on Ray too, where the cluster decides where they run.
    """
    if engine == "ray":
        yield from _on_ray(function, tasks, processes)
    elif min(processes, len(tasks)) <= 1:
        yield from map(function, tasks)
    else:
        yield from _in_processes(function, tasks, min(processes, len(tasks)))


def _in_processes(function: Callable[[Task], Result], tasks: Sequence[Task], processes: int) -> Iterator[Result]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent) as pool:
        try:
            for future in as_completed([pool.submit(function, task) for task in tasks]):
                yield future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process was killed (out of memory?); what is finished is kept: run the same command again"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """End this worker when the program that started it is killed: an orphan would go on writing beside a restart."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True).start()


def _watch(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _on_ray(function: Callable[[Task], Result], tasks: Sequence[Task], processes: int) -> Iterator[Result]:
    ray = _import_ray()
    if not ray.is_initialized():
        # The cluster that RAY_ADDRESS names, else one on this machine.
        ray.init(log_to_driver=False, logging_level=logging.WARNING, include_dashboard=False)
    remote = ray.remote(function)
    waiting = iter(tasks)
    running = [remote.remote(task) for task in itertools.islice(waiting, processes)]
    while running:
        ready, running = ray.wait(running, num_returns=1)
        running += [remote.remote(task) for task in itertools.islice(waiting, 1)]
        yield ray.get(ready[0])


def _import_ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise UserError("engine=ray needs Ray: pip install 'mmjepa[ray]', or use engine=processes") from error
    return ray
