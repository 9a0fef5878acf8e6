"""The training loop: the same for every task, every number of ranks, and a run that is continued."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmjepa.config import to_dict
from mmjepa.errors import UserError
from mmjepa.training.checkpoint import Checkpoints, Progress
from mmjepa.training.config import TrainingConfig
from mmjepa.training.flops import measured_peak
from mmjepa.training.launch import (
    deepspeed_engine,
    device,
    on_first_rank,
    partition_frozen,
    processes,
    seed_everything,
)
from mmjepa.training.metrics import MetricsLog, Stopwatch, TermBuffer, mean_terms
from mmjepa.training.nonfinite import NORM, SkippedSteps, tell_adamw
from mmjepa.training.partitioned import gathered
from mmjepa.training.run_folder import RunFolder
from mmjepa.training.schedules import learning_rate
from mmjepa.training.stopping import STOPPED_EXIT_CODE, StopRequest, stop_requests
from mmjepa.training.task import Layout, Task

logger = logging.getLogger(__name__)


def run_training(config: TrainingConfig, build_task: Callable[[torch.device], Task]) -> None:
    """Train the task that ``build_task(device)`` makes, from the newest checkpoint of ``config.run`` if there is one.

    Raises UserError if the run folder belongs to another configuration, the batch does not divide, loss or gradient
    are not finite more often than allowed, the data cannot be read, or the run's folder cannot be written. After
    SIGTERM or SIGUSR1 to any rank, all save after the next row of metrics (so that a continued run writes the same
    rows) and exit with code ``STOPPED_EXIT_CODE``.
    """
    folder = RunFolder(Path(config.run))
    folder.check_continues(config)
    with processes(config.accumulation) as layout:
        layout.micro_rows(config.batch_size)
        seed_everything(config.seed)  # equal on all ranks: they start from the same parameters
        task = build_task(device())
        trainer = Trainer(config, task, layout, folder)
        # Only now: a start that is refused leaves no folder, and no mark in that of an earlier run.
        on_first_rank(lambda: folder.open(config, layout.world))
        with (
            stop_requests() as stop,
            folder.writing(),
        ):  # not before: until there is something to save, a signal just ends the process
            trainer.run(stop)


class Trainer:
    """One run on one rank. Its only state beside the task's is ``step``, the number of finished optimiser steps."""

    def __init__(self, config: TrainingConfig, task: Task, layout: Layout, folder: RunFolder) -> None:
        self.config, self.task, self.layout, self.folder = config, task, layout, folder
        self.stage = config.deepspeed.stage_on(layout.world)
        self.checkpoints = Checkpoints(folder.checkpoints, layout, self.stage, config.checkpoint)
        if config.compile:
            compile_blocks(task.compiled_modules())
        self.engine = deepspeed_engine(task, config, layout)
        if self.stage == 3:
            for module in task.frozen_modules():
                partition_frozen(module, config.deepspeed)
        done = self.checkpoints.load_latest(self.engine)
        self.step = done.step
        self.skips = SkippedSteps(folder.skipped, layout, config.nonfinite.skips, done.skipped, done.step)
        self.terms = TermBuffer()
        self.keys: list[list[str]] = []  # of the buffered steps, to name the samples of a step that went wrong
        self.watch = Stopwatch()
        self.flops, self.peak = 0.0, float("nan")
        self.values: dict[str, float] = {}
        self.log: MetricsLog | None = None

    def run(self, stop: StopRequest) -> None:
        """Train to the last step, then export. A finished run is only exported again."""
        config = self.config
        if self.layout.rank == 0:
            logger.info("%s: step %d of %d, %d rank(s)", config.run, self.step, config.steps, self.layout.world)
            self.log = MetricsLog(self.folder.metrics, self.folder.tensorboard, self.step, config.steps)
        try:
            if self.step < config.steps:
                self._train(stop)
        finally:
            if self.log:
                self.log.close()
        modules = [self.task, *self.task.frozen_modules()]
        with gathered([parameter for module in modules for parameter in module.parameters()]):
            if self.layout.rank == 0:
                self.task.export(self.folder.path / self.task.export_name, self.step)
        dist.barrier()

    def _train(self, stop: StopRequest) -> None:
        config = self.config
        dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
        self.peak = measured_peak(dtype, device())
        batches = self.task.batches(self.step, self.layout)
        self.watch.restart()
        while self.step < config.steps:
            start = time.perf_counter()
            micro_batches = next(batches)
            self.watch.wait_from(start)
            self.optimiser_step(micro_batches)
            saves = self.step % config.checkpoint.every == 0 or self.step == config.steps
            measures = self.step % config.health.every == 0
            if saves or measures or self.step % config.log.every == 0:
                self._write_row(measures)
                if self.step < config.steps and stop.on_any_rank(device()):
                    self._save()
                    self._leave(stop)
            if saves:
                self._save()

    def _leave(self, stop: StopRequest) -> NoReturn:
        if self.layout.rank == 0:
            cause = stop.name or "a signal to another rank"
            logger.info("stopped by %s after step %d: the same command continues the run", cause, self.step)
        sys.exit(STOPPED_EXIT_CODE)

    def optimiser_step(self, micro_batches: Sequence[Any]) -> None:
        """Forward and backward over the micro-batches, one update, then the task's own (EMA)."""
        engine, config = self.engine, self.config
        seed_everything(config.seed, self.step, self.layout.rank)
        rate = learning_rate(config.optimizer, self.step, config.steps)
        for group in engine.optimizer.param_groups:
            group["lr"] = rate
        total: dict[str, Tensor] = {}
        norm: Tensor | None = None
        for batch in micro_batches:
            terms = engine(batch)
            engine.backward(terms["loss"])
            if engine.is_gradient_accumulation_boundary():
                norm = self._clip()
            engine.step()
            for name, term in terms.items():
                total[name] = total.get(name, 0.0) + term.detach() / len(micro_batches)
            self.flops += self.task.flops(batch) * self.layout.world
        # ZeRO measures the norm in its step, and skips the update when it is not finite: then the norm says so here.
        total[NORM] = _scalar(engine.get_global_grad_norm() if norm is None else norm, total["loss"])
        self.terms.add(total)
        self.keys.append([key for batch in micro_batches for key in self.task.batch_keys(batch)])
        self.values = {"lr": rate, **self.task.after_step(self.step)}
        self.step += 1
        self.watch.steps += 1
        if self.log:
            self.log.advance()

    def _clip(self) -> Tensor | None:
        """Stage 0: clip the (already averaged) gradients, see to the skip, return the norm. Else DeepSpeed does it."""
        if self.stage:
            return None
        limit = self.config.optimizer.max_grad_norm
        norm = torch.nn.utils.clip_grad_norm_(self.task.parameters(), math.inf if limit is None else limit)
        tell_adamw(self.engine.optimizer, norm)
        return norm

    def _write_row(self, measures: bool) -> None:
        """Reduce the interval over ranks, sort out skipped steps, write it on rank 0. Called on every rank."""
        self.watch.pause()
        bad_here = self.terms.bad_here(apart_from=NORM)
        terms = self.terms.reduce()
        steps = self.skips.sort_out(self.step - len(terms), terms, bad_here, self.keys)
        health = self.task.health() if measures else {}
        totals = self._totals()
        if self.log:
            seconds = self.watch.seconds
            achieved = self.flops / seconds / self.layout.world
            row = {
                "step": self.step,
                **mean_terms(steps),
                **self.values,
                "skipped_steps": self.skips.count,
                "seconds_per_step": seconds / self.watch.steps,
                "clips_per_s": self.watch.steps * self.config.batch_size / seconds,
                "data_wait": self.watch.waited / seconds,
                "flops_per_s": achieved * self.layout.world,
                "flops_share": achieved / self.peak,
                **totals,
                **health,
            }
            self.log.write(row)
        self.keys, self.flops = [], 0.0
        self.watch.restart()

    def _totals(self) -> dict[str, float]:
        """The task's counters, summed over ranks."""
        counters = self.task.counters()
        summed = torch.tensor(list(counters.values()), dtype=torch.float64, device=device())
        dist.all_reduce(summed)
        return dict(zip(counters, summed.tolist(), strict=True))

    def _save(self) -> None:
        self.watch.pause()
        if self.log:
            self.log.flush()
        self.checkpoints.save(self.engine, Progress(self.step, self.skips.count), to_dict(self.config))
        self.watch.resume()


def compile_blocks(modules: Sequence[nn.Module]) -> None:
    """Compile each of ``modules`` in place: its class and the names of its parameters stay.

    Dimensions are symbols from the first call on, as the lengths of index lists differ from step to step. Equal
    modules share their code, so a graph is made once per class, precision and mode (with gradient or without).
    Raises UserError if there are none.
    """
    if not modules:
        raise UserError("compile=true: this task has nothing to compile")
    for module in modules:
        module.compile(dynamic=True)


def _scalar(value: Tensor | float, like: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float32, device=like.device).detach()
