"""The record of a run: one JSON row per interval, the same in TensorBoard, one readable line, one progress bar."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

LINE_KEYS = ("loss", "lr", "grad_norm")


class TermBuffer:
    """Scalar terms of the steps since the last row, left on the device: one transfer per interval, none per step.

    The terms of a step may differ between steps (a batch of stills has no temporal ones), never between ranks.
    """

    def __init__(self) -> None:
        self._names: list[tuple[str, ...]] = []
        self._values: list[Tensor] = []

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Note the terms of one optimiser step."""
        names = tuple(sorted(terms))
        self._names.append(names)
        self._values.append(torch.stack([terms[name].detach().float() for name in names]))

    def reduce(self) -> list[dict[str, float]]:
        """Mean over ranks of every term, per step, oldest first; empties the buffer. A collective: call on every rank.

        A term that is not finite on any rank is not finite here, on all of them.
        """
        flat = torch.cat(self._values).double()
        dist.all_reduce(flat)
        values = (flat / dist.get_world_size()).tolist()
        steps = []
        for names in self._names:
            steps.append(dict(zip(names, values[: len(names)], strict=True)))
            del values[: len(names)]
        self._names, self._values = [], []
        return steps

    def bad_here(self, apart_from: str) -> set[int]:
        """Places of the buffered steps with a term that is not finite on this rank, other than ``apart_from``."""
        finite = [
            torch.isfinite(values[[name != apart_from for name in names]]).all()
            for names, values in zip(self._names, self._values, strict=True)
        ]
        return {place for place, fine in enumerate(torch.stack(finite).tolist()) if not fine}

    def __len__(self) -> int:
        return len(self._values)


def mean_terms(steps: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each term over the steps in which it occurs."""
    names = sorted({name for step in steps for name in step})
    columns = {name: [step[name] for step in steps if name in step] for name in names}
    return {name: math.fsum(column) / len(column) for name, column in columns.items()}


class Stopwatch:
    """Wall time of an interval, split into waiting for data and the rest; saving and measuring health are left out."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Start a new interval now."""
        self.steps = 0
        self.waited = 0.0
        self._worked = 0.0
        self._since = time.perf_counter()

    def wait_from(self, start: float) -> None:
        """Count the time since ``start`` (of ``time.perf_counter``) as waiting for data."""
        self.waited += time.perf_counter() - start

    def pause(self) -> None:
        """Stop counting."""
        self._worked += time.perf_counter() - self._since

    def resume(self) -> None:
        """Count on after :meth:`pause`."""
        self._since = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Counted time of the interval; call while paused."""
        return self._worked


class MetricsLog:
    """Writes rows on rank 0. Opened at ``step``, it first drops rows beyond it: a resumed curve has no doubles."""

    def __init__(self, jsonl: Path, tensorboard: Path, step: int, total: int) -> None:
        truncate(jsonl, step)
        self._file = jsonl.open("a")
        self._board = SummaryWriter(str(tensorboard), purge_step=step + 1)
        self._bar = tqdm(total=total, initial=step, unit="step", disable=None, dynamic_ncols=True, smoothing=0.05)
        self._total = total

    def advance(self) -> None:
        """One optimiser step is done."""
        self._bar.update(1)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row; ``step`` counts finished optimiser steps. Values that are not finite become null."""
        clean = {key: _json_number(value) for key, value in row.items()}
        self._file.write(json.dumps(clean) + "\n")
        self._file.flush()
        for key, value in clean.items():
            if isinstance(value, (int, float)) and key != "step":
                self._board.add_scalar(key, value, row["step"])
        self._say(row)

    def flush(self) -> None:
        """Put every row on disk: called before a checkpoint is marked complete."""
        os.fsync(self._file.fileno())
        self._board.flush()

    def close(self) -> None:
        """Write what is left and close the files."""
        self._bar.close()
        self._file.close()
        self._board.close()

    def _say(self, row: Mapping[str, Any]) -> None:
        terms = "  ".join(f"{key} {row[key]:.3g}" for key in LINE_KEYS if key in row)
        left = (self._total - row["step"]) * row["seconds_per_step"]
        self._bar.write(
            f"step {row['step']}/{self._total}  {terms}  {row['clips_per_s']:.3g} clips/s  "
            f"data wait {row['data_wait']:.0%}  {row['flops_share']:.0%} of peak  left {_duration(left)}"
        )


def truncate(jsonl: Path, step: int) -> None:
    """Drop the rows whose ``step`` is beyond ``step`` and a half-written last line, through a rename."""
    if not jsonl.exists():
        return
    kept = []
    for line in jsonl.read_text().splitlines(keepends=True):
        if not line.endswith("\n") or json.loads(line)["step"] > step:
            break
        kept.append(line)
    partial = jsonl.with_suffix(".tmp")
    partial.write_text("".join(kept))
    partial.replace(jsonl)


def _json_number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _duration(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}"
