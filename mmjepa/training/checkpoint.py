"""Checkpoints that are either complete or not there, and fit any number of ranks and any ZeRO stage.

    checkpoints/step-00000100/
      rank-00000.safetensors ...  model/<name>, exp_avg/<name>, exp_avg_sq/<name>: whole tensors, dealt out to the ranks
      task.safetensors            what the task adds, e.g. the EMA teacher
      state.json                  step (which is the data position), AdamW's updates, skipped steps, the ranks and the
                                  ZeRO stage that wrote it, shapes, data fingerprints, config
      COMPLETE                    written last

A checkpoint is written into ``step-*.tmp``, flushed to disk, marked complete and renamed; whatever else is found at a
restart was cut off and is removed. Nothing is pickled, so loading cannot run code. No generator state is saved: all
randomness of a step is drawn from generators seeded by (seed, step, rank), so the step number alone restores it.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmjepa.errors import UserError
from mmjepa.training import optimizer_state
from mmjepa.training.config import CheckpointConfig
from mmjepa.training.partitioned import gathered, load_whole, whole_shape
from mmjepa.training.task import Layout, Task

logger = logging.getLogger(__name__)
FORMAT = 2
COMPLETE = "COMPLETE"
TASK_FILE = "task.safetensors"
STATE_FILE = "state.json"
MODEL = "model"


@dataclass(frozen=True)
class Progress:
    """How far a run has come: finished optimiser steps, and how many of them were skipped (see ``nonfinite.py``)."""

    step: int = 0
    skipped: int = 0


class Checkpoints:
    """The checkpoints of one run. Every method is called on every rank; all fail together, with a UserError."""

    def __init__(self, folder: Path, layout: Layout, zero_stage: int, keep: CheckpointConfig) -> None:
        self.folder, self.layout, self.zero_stage, self.keep = folder, layout, zero_stage, keep

    def save(self, engine: Any, progress: Progress, config: Mapping[str, Any]) -> None:
        """Write the checkpoint after ``progress.step`` optimiser steps, then drop those that are not to be kept.

        Raises UserError, with the earlier checkpoints untouched, if any rank cannot write.
        """
        task: Task = engine.module
        final = self.folder / f"step-{progress.step:08d}"
        partial = final.with_suffix(".tmp")
        mine = _dealt_out(engine, self.layout)
        state = {
            "format": FORMAT,
            "step": progress.step,
            "skipped": progress.skipped,
            "updates": optimizer_state.updates(engine),
            "world": self.layout.world,
            "zero_stage": self.zero_stage,
            "parameters": _shapes(task),
            "data": task.data_fingerprints(),
            "config": dict(config),
        }
        extra = _copied(task.extra_state().items())  # on every rank: the teacher may lie in pieces

        def write() -> None:
            save_file(mine, partial / f"rank-{self.layout.rank:05d}.safetensors")
            if self.layout.rank == 0:
                save_file(extra, partial / TASK_FILE)
                (partial / STATE_FILE).write_text(json.dumps(state, indent=1))

        def finish() -> None:
            (partial / COMPLETE).touch()
            _flush(partial)
            partial.rename(final)
            _flush_folder(self.folder)
            for old in self._surplus():
                _remove(old)

        def clear() -> None:  # what stays is not marked complete, and goes at the next start
            shutil.rmtree(partial, ignore_errors=True)

        what = f"write checkpoint {final}"
        self._together(what, lambda: _empty(partial), clear, everywhere=False)
        self._together(what, write, clear)
        self._together(what, lambda: _flush(partial), clear)  # by every rank: each node caches its own files
        self._together(what, finish, clear, everywhere=False)

    def load_latest(self, engine: Any) -> Progress:
        """Restore the newest complete checkpoint into ``engine``; the beginning if there is none."""
        optimizer_state.allocate(engine)
        found = complete_checkpoints(self.folder)

        def tidy() -> None:
            for leftover in set(self.folder.glob("step-*")) - set(found):
                shutil.rmtree(leftover)

        self._together(f"clear {self.folder} of what was cut off", tidy, everywhere=False)
        if not found:
            return Progress()
        state = read_state(found[-1])
        self._check(found[-1], state, engine.module)
        try:
            self._restore(engine, found[-1], state)
        except (OSError, SafetensorError) as error:
            raise UserError(_damaged(found[-1], error)) from error
        return Progress(int(state["step"]), int(state["skipped"]))

    def _restore(self, engine: Any, path: Path, state: Mapping[str, Any]) -> None:
        task: Task = engine.module
        trained = dict(optimizer_state.trained(task))
        missing = {MODEL: set(task.state_dict())} | {moment: set(trained) for moment in optimizer_state.MOMENTS}
        for kind, name, tensor in _stored(path):
            if name not in missing.get(kind, ()):
                raise UserError(_damaged(path, f"{kind}/{name} is not expected, or there twice"))
            missing[kind].remove(name)
            if kind == MODEL:
                load_whole(task, name, tensor)
            else:
                optimizer_state.restore_moment(engine, trained[name], kind, tensor)
        if left := sorted(set().union(*missing.values())):
            raise UserError(_damaged(path, f"{left[0]} is missing"))
        optimizer_state.restore_updates(engine, int(state["updates"]))
        task.load_extra_state(load_file(path / TASK_FILE))

    def _surplus(self) -> list[Path]:
        """Complete checkpoints beyond the newest ``keep_last`` that ``keep_every`` does not keep either."""
        every = self.keep.keep_every
        old = complete_checkpoints(self.folder)[: -self.keep.keep_last]
        return [path for path in old if every is None or int(path.name.removeprefix("step-")) % every]

    def _together(
        self,
        what: str,
        action: Callable[[], object],
        clear: Callable[[], object] = lambda: None,
        everywhere: bool = True,
    ) -> None:
        """Do ``action`` on every rank, or on rank 0 alone; if one cannot write, ``clear`` on rank 0, raise on all."""
        failure = None
        if everywhere or self.layout.rank == 0:
            try:
                action()
            except (OSError, SafetensorError) as error:
                failure = str(error)
        failures: list[str | None] = [None] * self.layout.world
        dist.all_gather_object(failures, failure)
        if not any(failures):
            return
        if self.layout.rank == 0:
            clear()
        kept = complete_checkpoints(self.folder)
        rank, reason = next((rank, reason) for rank, reason in enumerate(failures) if reason)
        raise UserError(
            f"cannot {what} (rank {rank}: {reason}); {kept[-1].name if kept else 'no checkpoint'} is kept: "
            "the same command continues from there"
        )

    def _check(self, path: Path, state: Mapping[str, Any], task: Task) -> None:
        """Refuse, in one line, what would fail with a traceback or go wrong in silence."""
        saved, present = state["parameters"], _shapes(task)
        for name in sorted(saved.keys() | present.keys()):
            if saved.get(name) != present.get(name):
                raise UserError(
                    f"checkpoint {path} is of another shape: {name} is {saved.get(name, 'absent')} there "
                    f"and {present.get(name, 'absent')} here"
                )
        if changed := sorted(_changed(state.get("data", {}), task.data_fingerprints())):
            raise UserError(
                f"checkpoint {path} was trained on other data: {', '.join(changed)} differ; give another run="
            )
        there, here = (state["world"], state["zero_stage"]), (self.layout.world, self.zero_stage)
        if there != here and self.layout.rank == 0:
            logger.info(
                "%s was written by %d rank(s) under ZeRO-%d, this is %d under ZeRO-%d: same clips and masks, equal up "
                "to rounding where nothing is drawn or averaged by rank",
                *(path, *there, *here),
            )


def complete_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders that were written to the end, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / COMPLETE).exists() and path.suffix != ".tmp")


def read_state(path: Path) -> dict[str, Any]:
    """The ``state.json`` of a checkpoint."""
    try:
        state = dict(json.loads((path / STATE_FILE).read_text()))
    except (OSError, ValueError) as error:
        raise UserError(_damaged(path, error)) from error
    if state.get("format") != FORMAT:
        raise UserError(f"checkpoint {path} was written by another version of mmjepa; give another run=")
    return state


def _dealt_out(engine: Any, layout: Layout) -> dict[str, Tensor]:
    """This rank's share of parameters, buffers and moments, in host memory. A collective: call on every rank."""
    task: Task = engine.module
    parameters, trained = dict(task.named_parameters()), dict(optimizer_state.trained(task))
    load = [0] * layout.world
    mine: dict[str, Tensor] = {}
    for name, value in task.state_dict().items():
        owner = load.index(min(load))  # the rank with the least so far: the same on all
        load[owner] += math.prod(whole_shape(parameters.get(name, value)))
        moments: dict[str, Tensor] = {}
        if name in trained:
            kinds = optimizer_state.MOMENTS
            moments = {f"{kind}/{name}": optimizer_state.whole_moment(engine, trained[name], kind) for kind in kinds}
        with gathered([parameters[name]] if name in parameters else []):
            if owner == layout.rank:
                mine |= _copied({f"{MODEL}/{name}": parameters.get(name, value), **moments}.items())
    return mine


def _copied(tensors: Any) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors}


def _stored(path: Path) -> Iterator[tuple[str, str, Tensor]]:
    """(kind, name, tensor) of everything that the ranks wrote into a checkpoint."""
    for file in sorted(path.glob("rank-*.safetensors")):
        with safe_open(file, "pt") as opened:
            for key in opened.keys():  # noqa: SIM118 (not a dictionary)
                kind, _, name = key.partition("/")
                yield kind, name, opened.get_tensor(key)


def _damaged(path: Path, cause: object) -> str:
    return f"checkpoint {path} is damaged ({cause}); remove it to continue from the one before"


def _changed(saved: Mapping[str, str], present: Mapping[str, str]) -> set[str]:
    return {name for name in saved.keys() | present.keys() if saved.get(name) != present.get(name)}


def _shapes(task: nn.Module) -> dict[str, list[int]]:
    whole = {name: whole_shape(parameter) for name, parameter in task.named_parameters()}
    return {name: whole.get(name, list(tensor.shape)) for name, tensor in task.state_dict().items()}


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _remove(path: Path) -> None:
    """Delete a checkpoint such that a kill half-way leaves nothing that looks complete."""
    doomed = path.with_suffix(".tmp")
    path.rename(doomed)
    shutil.rmtree(doomed)


def _flush(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _flush_folder(folder)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
