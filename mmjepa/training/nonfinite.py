"""Steps whose loss or gradient is not finite: skipped by all ranks alike, named, and at most so many in a run.

One number decides, the norm of the gradient averaged over ranks and micro-batches, so no rank can decide otherwise. A
loss, or another term, that is not finite is made to show there (:meth:`Task.forward`). What is skipped is AdamW's
update: parameters, moments and its count of updates stay as they were.

* ZeRO-0: AdamW's kernel is told on the device (``found_inf``) and changes nothing; the host does not wait.
* ZeRO-1 to 3: DeepSpeed looks at the norm in every step (for which the host waits, skips or not) and leaves out the
  update.

The step counts as done: schedules go on, and the EMA teacher moves towards the student that stayed where it was. So a
skip is a function of data and parameters alone, and a continued run skips the same steps. The host learns of it at the
next logged row, which is why a run may skip up to ``log.every`` steps more than allowed before it ends.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from mmjepa.errors import UserError
from mmjepa.training.metrics import truncate
from mmjepa.training.task import Layout

logger = logging.getLogger(__name__)
SHOWN_KEYS = 32
NORM = "grad_norm"


def tell_adamw(optimizer: torch.optim.Optimizer, norm: Tensor) -> None:
    """Have the next update of a fused AdamW do nothing if ``norm``, of its gradient, is not finite."""
    optimizer.found_inf = torch.isfinite(norm).logical_not().float()  # type: ignore[attr-defined]


class SkippedSteps:
    """Counts, reports and limits the skipped steps of a run. ``count``: those so far, over continued runs."""

    def __init__(self, record: Path, layout: Layout, allowed: int, count: int, step: int) -> None:
        self.record, self.layout, self.allowed, self.count = record, layout, allowed, count
        if layout.rank == 0:
            truncate(record, step - 1)  # what a killed run did beyond its checkpoint comes again

    def sort_out(
        self, first: int, steps: Sequence[Mapping[str, float]], bad_here: set[int], keys: Sequence[list[str]]
    ) -> list[dict[str, float]]:
        """Terms of the steps that were applied, of ``steps`` from number ``first`` on; NaN if there are none.

        ``steps`` are equal on all ranks, ``bad_here`` holds the places where a term is not finite on this one and
        ``keys`` this rank's samples. Raises UserError on all ranks when more were skipped than allowed.
        """
        skipped = [place for place, terms in enumerate(steps) if not all(map(math.isfinite, terms.values()))]
        told = ""
        for place in skipped:
            told = self._report(first + place, steps[place], place in bad_here, keys[place])
        self.count += len(skipped)
        if self.count > self.allowed:
            raise UserError(
                f"{told}; {self.count} step(s) were not finite, more than nonfinite.skips={self.allowed}: "
                "the run stops, its last checkpoint is intact"
            )
        applied = [dict(terms) for place, terms in enumerate(steps) if place not in skipped]
        return applied or [dict.fromkeys(steps[0], math.nan)]

    def _report(self, step: int, terms: Mapping[str, float], bad_here: bool, keys: list[str]) -> str:
        """Name the samples: of the ranks where a term is not finite; of all, if it is the gradient alone."""
        gathered: list[tuple[bool, list[str]]] = [(False, [])] * self.layout.world
        dist.all_gather_object(gathered, (bad_here, keys))
        blamed = [part for bad, part in gathered if bad] or [part for _, part in gathered]
        samples = [key for part in blamed for key in part]
        names = [name for name, value in terms.items() if not math.isfinite(value)]
        rest = f" and {len(samples) - SHOWN_KEYS} more in {self.record}" if len(samples) > SHOWN_KEYS else ""
        told = f"{', '.join(names)} not finite at step {step}; samples: {', '.join(samples[:SHOWN_KEYS])}{rest}"
        if self.layout.rank == 0:
            logger.warning("warning: skipped: %s", told)
            with self.record.open("a") as file:
                file.write(json.dumps({"step": step, "not_finite": names, "keys": samples}) + "\n")
        return told
