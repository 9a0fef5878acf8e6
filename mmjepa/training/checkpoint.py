"""Checkpoints that are either complete or not there.

    checkpoints/step-00000100/
      mp_rank_*, zero_pp_rank_*    what DeepSpeed saves: parameters and optimiser, sharded by rank
      task.safetensors             what the task adds, e.g. the EMA teacher
      state.json                   step (which is the data position), world size, ZeRO stage, parameter shapes, data
                                   fingerprints, config
      COMPLETE                     written last

A checkpoint is written into ``step-*.tmp``, flushed to disk, marked complete and renamed; whatever else is found at a
restart was cut off and is removed. No generator state is saved: all randomness of a step is drawn from generators
seeded by (seed, step, rank), so the step number alone restores it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn

from mmjepa.errors import UserError
from mmjepa.training.task import Layout, Task

COMPLETE = "COMPLETE"
TASK_FILE = "task.safetensors"
STATE_FILE = "state.json"


class Checkpoints:
    """The checkpoints of one run. Every method is called on every rank; rank 0 does what is done once."""

    def __init__(self, folder: Path, layout: Layout, zero_stage: int, keep_last: int) -> None:
        self.folder, self.layout, self.zero_stage, self.keep_last = folder, layout, zero_stage, keep_last

    def save(self, engine: Any, step: int, config: Mapping[str, Any]) -> None:
        """Write the checkpoint after ``step`` optimiser steps, then drop the oldest ones beyond ``keep_last``."""
        task: Task = engine.module
        final = self.folder / f"step-{step:08d}"
        partial = final.with_suffix(".tmp")
        engine.save_checkpoint(str(self.folder), tag=partial.name, save_latest=False)
        if self.layout.rank == 0:
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in task.extra_state().items()}
            save_file(tensors, partial / TASK_FILE)
            state = {"step": step, "config": dict(config), "parameters": _shapes(task)}
            state |= {"data": task.data_fingerprints(), **self._sharding()}
            (partial / STATE_FILE).write_text(json.dumps(state, indent=1))
        dist.barrier()
        _flush(partial)  # by every rank: on several nodes each holds its own files in its page cache
        dist.barrier()
        if self.layout.rank == 0:
            (partial / COMPLETE).touch()
            _flush(partial)
            partial.rename(final)
            _flush_folder(self.folder)
            for old in complete_checkpoints(self.folder)[: -self.keep_last]:
                _remove(old)
        dist.barrier()

    def load_latest(self, engine: Any) -> int:
        """Restore the newest complete checkpoint into ``engine`` and return its step; 0 if there is none."""
        if self.layout.rank == 0:
            for leftover in self.folder.glob("step-*"):
                if not (leftover / COMPLETE).exists() or leftover.suffix == ".tmp":
                    shutil.rmtree(leftover)
        dist.barrier()
        found = complete_checkpoints(self.folder)
        if not found:
            return 0
        state = read_state(found[-1])
        self._check(found[-1], state, engine.module)
        engine.checkpoint_engine = _restricted(engine.checkpoint_engine)
        engine.load_checkpoint(str(self.folder), tag=found[-1].name)
        engine.module.load_extra_state(load_file(found[-1] / TASK_FILE))
        return int(state["step"])

    def _sharding(self) -> dict[str, int]:
        return {"world": self.layout.world, "zero_stage": self.zero_stage}

    def _check(self, path: Path, state: Mapping[str, Any], task: Task) -> None:
        """Refuse, in one line, what DeepSpeed would fail on with a traceback."""
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
        sharded = self.zero_stage or state["zero_stage"]
        if sharded and self._sharding() != {key: state[key] for key in ("world", "zero_stage")}:
            raise UserError(
                f"checkpoint {path} was written by {state['world']} ranks under ZeRO {state['zero_stage']}; "
                f"this is {self.layout.world} ranks under ZeRO {self.zero_stage}"
            )


def complete_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders that were written to the end, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / COMPLETE).exists() and path.suffix != ".tmp")


def read_state(path: Path) -> dict[str, Any]:
    """The ``state.json`` of a checkpoint."""
    try:
        return dict(json.loads((path / STATE_FILE).read_text()))
    except (OSError, ValueError) as error:
        raise UserError(f"checkpoint {path} is damaged ({error}); remove it to continue from the one before") from error


def _changed(saved: Mapping[str, str], present: Mapping[str, str]) -> set[str]:
    return {name for name in saved.keys() | present.keys() if saved.get(name) != present.get(name)}


def _shapes(task: nn.Module) -> dict[str, list[int]]:
    return {name: list(parameter.shape) for name, parameter in task.named_parameters()}


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


def _restricted(checkpoint_engine: Any) -> Any:
    """The same DeepSpeed checkpoint engine, but loading refuses pickled code (DeepSpeed loads with full pickle)."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    def load(path: str, map_location: Any = None) -> Any:
        with torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address]):
            return torch.load(path, map_location=map_location, weights_only=True)

    checkpoint_engine.load = load
    return checkpoint_engine
