"""What every objective adds to a training step: full steps of a variant and of the baseline, taking turns."""

from __future__ import annotations

import gc
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmjepa.config import load_config
from mmjepa.errors import UserError
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
        if REFERENCE in self.objectives:
            raise UserError(f"objectives: {REFERENCE} is what they are compared with")


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
    config = replace(config, steps=max(config.warmup + config.repeats, config.optimizer.warmup_steps + 1))
    # On a CPU the processor's seconds: other work on the machine then does not count.
    clock = "processor" if device().type == "cpu" else "wall"
    with processes(config.accumulation) as layout, _trainer(config, REFERENCE, layout) as (plain_task, plain):
        for objective in config.objectives:
            with _trainer(config, objective, layout) as (task, trainer):
                calls = {REFERENCE: _steps(plain, plain_task, layout), objective: _steps(trainer, task, layout)}
                times = take_turns(calls, config.warmup, config.repeats, device(), clock)
            del task, trainer, calls
            gc.collect()  # engines hold themselves in circles, and one is as large as its model and optimiser
            ratios = [ours / theirs for theirs, ours in zip(times[REFERENCE], times[objective], strict=True)]
            yield {
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
