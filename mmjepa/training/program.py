"""Schema of ``configs/train.yaml``, and the task that it asks for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import Any

from mmjepa.alignment.config import AlignConfig, AlignParts
from mmjepa.data.config import DataConfig
from mmjepa.errors import UserError
from mmjepa.frozen import EncoderConfig
from mmjepa.masking import MaskingConfig
from mmjepa.models import ModelConfig
from mmjepa.objectives import ObjectiveConfig
from mmjepa.text import TextConfig
from mmjepa.training.config import TrainingConfig
from mmjepa.training.engine import run_training
from mmjepa.training.plan import plan
from mmjepa.training.pretrain import PretrainParts, PretrainTask

GROUPS = {
    "pretrain": ("model", "masking", "objective", "data"),
    "align": ("encoder", "text", "data", "align"),
}
"""Which groups of the configuration each task is made of; the others must be absent."""


@dataclass
class TrainConfig(TrainingConfig):
    """The engine's settings, ``task``, and the groups that this task needs.

    dry_run: a number of ranks, for which the plan of the run is printed instead of training.
    """

    task: str = "pretrain"
    dry_run: int | None = None
    model: ModelConfig | None = None
    masking: MaskingConfig | None = None
    objective: ObjectiveConfig | None = None
    data: DataConfig | None = None
    encoder: EncoderConfig | None = None
    text: TextConfig | None = None
    align: AlignConfig | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task not in GROUPS:
            raise UserError(f"task '{self.task}' is not known ({', '.join(GROUPS)})")
        if self.dry_run is not None and (self.dry_run < 1 or self.task != "pretrain"):
            raise UserError(f"dry_run={self.dry_run}: a number of ranks, for task=pretrain")
        for group in sorted({name for names in GROUPS.values() for name in names}):
            needed, given = group in GROUPS[self.task], getattr(self, group) is not None
            if needed != given:
                raise UserError(f"task {self.task} {'needs' if needed else 'does not use'} the group {group}")
        if self.task == "align" and self.data is not None and self.data.decoder != "pyav":
            raise UserError(f"data.decoder={self.data.decoder} is for task=pretrain: frozen encoders read through PyAV")
        if self.objective is not None and not self.objective.stop_gradient and self.ema is not None:
            raise UserError("objective.stop_gradient=false needs ema=null: a teacher's tokens have no gradient")

    def parts(self) -> dict[str, Any]:
        """The task's groups by name."""
        return {group: getattr(self, group) for group in GROUPS[self.task]}


@dataclass
class PretrainConfig(TrainConfig):
    """A training configuration of a program that is about pretraining alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task != "pretrain":
            raise UserError(f"task={self.task}: this program is about task=pretrain")


def train(config: TrainConfig) -> None:
    """Train from the newest checkpoint of ``run`` if there is one, and export the result into the run's folder.

    With ``dry_run`` only print what that would be.
    """
    if config.data is not None:
        config.data.check_sources()
    if config.dry_run is not None:
        lines = list(plan(config, PretrainParts(**config.parts()), config.dry_run))
        if os.environ.get("RANK", "0") == "0":
            print("\n".join(f"{name:16s} {words}" for name, words in lines))
    elif config.task == "pretrain":
        run_training(config, partial(PretrainTask, config, PretrainParts(**config.parts())))
    else:
        from mmjepa.alignment.task import AlignTask  # with the text libraries, which pretraining has no use for

        run_training(config, partial(AlignTask, config, AlignParts(**config.parts())))
