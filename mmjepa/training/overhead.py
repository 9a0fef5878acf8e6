"""What every objective adds to a training step: full steps of a variant and of the baseline, taking turns."""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from mmjepa.config import load_config
from mmjepa.errors import UserError
from mmjepa.objectives import ObjectiveConfig
from mmjepa.training.benchmark import SyntheticTask
from mmjepa.training.engine import Trainer
from mmjepa.training.launch import device, processes
from mmjepa.training.pretrain import PretrainParts
from mmjepa.training.program import PretrainConfig, TrainConfig
from mmjepa.training.run_folder import RunFolder
from mmjepa.training.task import Layout
from mmjepa.training.timing import take_turns

REFERENCE = "baseline"


@dataclass
class OverheadConfig(PretrainConfig):
    """A training configuration; ``objectives``: options of the group ``objective`` to compare with the baseline.

    ``repeats`` pairs of steps are timed for each after ``warmup``, ``jobs`` objectives side by side.
    out: .json file (null: print only).
    """

    objectives: list[str] = field(default_factory=list)
    warmup: int = 1
    repeats: int = 5
    jobs: int = 1
    out: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.warmup, self.repeats, self.jobs) < 1 or not self.objectives:
            raise UserError("warmup, repeats, jobs and objectives need at least one each")
        for objective in self.objectives:  # before anything is built
            _objective(objective)
        if REFERENCE in self.objectives:
            raise UserError(f"objectives: {REFERENCE} is what they are compared with")


def _objective(name: str) -> ObjectiveConfig | None:
    return load_config("train", TrainConfig, ["run=unused", "ema=null", f"objective={name}"]).objective


@contextmanager
def _trainer(config: TrainConfig, objective: str, layout: Layout) -> Iterator[tuple[SyntheticTask, Trainer]]:
    """A trainer of ``objective`` in a folder of its own. Unknown names raise UserError."""
    chosen = _objective(objective)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        here = replace(config, run=folder, objective=chosen)
        run.open(here, layout.world)
        task = SyntheticTask(here, PretrainParts(**here.parts()), device())
        yield task, Trainer(here, task, layout, run)


def measure_overheads(config: OverheadConfig) -> Iterator[dict[str, Any]]:
    """One row per objective, in their order: ``ratio`` is the median over pairs of steps on the same clips and masks.
    Seconds are the processor's on a CPU, the clock's on a GPU."""
    # A process for each: engines hold themselves in circles, and one is as large as its model and optimiser.
    with multiprocessing.get_context("spawn").Pool(config.jobs, maxtasksperchild=1) as pool:
        yield from pool.imap(partial(_overhead, config), config.objectives)


def _overhead(config: OverheadConfig, objective: str) -> dict[str, Any]:
    config = replace(config, steps=max(config.warmup + config.repeats, config.optimizer.warmup_steps + 1))
    # On a CPU the processor's seconds: other work on the machine then does not count.
    clock = "processor" if device().type == "cpu" else "wall"
    with ExitStack() as stack:
        layout = stack.enter_context(processes(config.accumulation))
        calls = {}
        for name in (REFERENCE, objective):
            task, trainer = stack.enter_context(_trainer(config, name, layout))
            calls[name] = _steps(trainer, task, layout)
        times = take_turns(calls, config.warmup, config.repeats, device(), clock)
    ratios = [ours / theirs for theirs, ours in zip(times[REFERENCE], times[objective], strict=True)]
    return {
        "objective": objective,
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "baseline_seconds": statistics.median(times[REFERENCE]),
        "seconds": statistics.median(times[objective]),
    }


def _steps(trainer: Trainer, task: SyntheticTask, layout: Layout) -> Callable[[], None]:
    """One training step per call, on the clips and masks that any other objective gets."""
    batches = task.batches(0, layout)
    return lambda: trainer.optimiser_step(next(batches))
