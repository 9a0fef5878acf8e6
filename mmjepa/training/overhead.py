"""What every objective adds to a training step: full steps of a variant and of the baseline, taking turns."""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmjepa.config import load_config
from mmjepa.errors import UserError
from mmjepa.training.benchmark import SyntheticTask
from mmjepa.training.engine import Trainer
from mmjepa.training.flops import synchronise
from mmjepa.training.launch import device, processes
from mmjepa.training.pretrain import PretrainParts
from mmjepa.training.program import PretrainConfig, TrainConfig
from mmjepa.training.run_folder import RunFolder
from mmjepa.training.task import Layout

REFERENCE = "baseline"


@dataclass
class OverheadConfig(PretrainConfig):
    """A training configuration; ``objectives``: options of the group ``objective`` to compare with the baseline.

    ``repeats`` pairs of steps are timed for each after ``warmup``. out: .json file (null: print only).
    """

    objectives: list[str] = field(default_factory=list)
    warmup: int = 1
    repeats: int = 5
    out: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup < 1 or self.repeats < 1 or not self.objectives:
            raise UserError("warmup, repeats and objectives need at least one each")


@contextmanager
def _trainer(config: TrainConfig, objective: str, layout: Layout) -> Iterator[tuple[SyntheticTask, Trainer]]:
    """A trainer of ``objective`` in a folder of its own. Unknown names raise UserError."""
    chosen = load_config("train", TrainConfig, ["run=unused", f"objective={objective}"]).objective
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        here = replace(config, run=folder, objective=chosen)
        run.open(here, layout.world)
        task = SyntheticTask(here, PretrainParts(**here.parts()), device())
        yield task, Trainer(here, task, layout, run)


def measure_overheads(config: OverheadConfig) -> Iterator[dict[str, Any]]:
    """One row per objective: ``ratio`` is the median over pairs of steps on the same clips and masks. Seconds are the
    processor's on a CPU, the clock's on a GPU."""
    pairs = config.warmup + config.repeats
    config = replace(config, steps=max(pairs, config.optimizer.warmup_steps + 1))
    with processes(config.accumulation) as layout, _trainer(config, REFERENCE, layout) as (plain_task, plain):
        for objective in config.objectives:
            with _trainer(config, objective, layout) as (task, trainer):
                sides = [(plain, plain_task.batches(0, layout)), (trainer, task.batches(0, layout))]
                times = [[_timed(side, next(batches)) for side, batches in sides] for _ in range(pairs)]
            del task, trainer, sides
            gc.collect()  # engines hold themselves in circles, and one is as large as its model and optimiser
            kept = times[config.warmup :]
            ratios = [ours / theirs for theirs, ours in kept]
            yield {
                "objective": objective,
                "ratio": statistics.median(ratios),
                "lowest": min(ratios),
                "highest": max(ratios),
                "baseline_seconds": statistics.median(theirs for theirs, _ in kept),
                "seconds": statistics.median(ours for _, ours in kept),
            }


def _timed(trainer: Trainer, batch: Any) -> float:
    # On a CPU the processor's seconds: other work on the machine then does not count.
    clock = time.process_time if device().type == "cpu" else time.perf_counter
    synchronise(device())
    start = clock()
    trainer.optimiser_step(batch)
    synchronise(device())
    return clock() - start
