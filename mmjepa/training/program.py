"""Schema of ``configs/train.yaml``, and which task it asks for."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mmjepa.data.config import DataConfig
from mmjepa.errors import UserError
from mmjepa.masking import MaskingConfig
from mmjepa.models import ModelConfig
from mmjepa.objectives import ObjectiveConfig
from mmjepa.training.config import TrainingConfig
from mmjepa.training.engine import run_training
from mmjepa.training.pretrain import PretrainParts, PretrainTask
from mmjepa.training.task import Task


@dataclass
class TrainConfig(TrainingConfig):
    """``task: pretrain`` needs model, masking, objective and data."""

    task: str = "pretrain"
    model: ModelConfig | None = None
    masking: MaskingConfig | None = None
    objective: ObjectiveConfig | None = None
    data: DataConfig | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task != "pretrain":
            raise UserError(f"task '{self.task}' is not known (pretrain)")

    def pretrain_parts(self) -> PretrainParts:
        """The groups that pretraining needs; raises UserError if one is absent."""
        if not (self.model and self.masking and self.objective and self.data):
            raise UserError("task pretrain needs the groups model, masking, objective and data")
        return PretrainParts(self.model, self.masking, self.objective, self.data)


def train(config: TrainConfig) -> None:
    """Train from the newest checkpoint of ``run`` if there is one, and export the result into the run's folder."""
    parts = config.pretrain_parts()

    def build(device: torch.device) -> Task:
        return PretrainTask(config, parts, device)

    run_training(config, build)
