"""Timing what takes turns, so that other work on the machine hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

from mmjepa.training.flops import synchronise

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def take_turns(
    calls: Mapping[str, Callable[[], object]], warmup: int, repeats: int, device: torch.device, clock: str = "wall"
) -> dict[str, list[float]]:
    """Seconds of ``repeats`` calls of each after ``warmup`` ones, by name, in turns.

    clock: ``processor`` counts the process's own time, all its threads together: for work on a CPU alone.
    """
    read = CLOCKS[clock]
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warmup + repeats):
        for name, call in calls.items():
            synchronise(device)
            start = read()
            call()
            synchronise(device)
            if turn >= warmup:
                seconds[name].append(read() - start)
    return seconds
