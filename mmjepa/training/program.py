"""Schema of ``configs/train.yaml``, and which task it asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from mmjepa.alignment.config import AlignConfig, AlignParts
from mmjepa.alignment.task import AlignTask
from mmjepa.data.config import DataConfig
from mmjepa.errors import UserError
from mmjepa.frozen import EncoderConfig
from mmjepa.masking import MaskingConfig
from mmjepa.models import ModelConfig
from mmjepa.objectives import ObjectiveConfig
from mmjepa.text import TextConfig
from mmjepa.training.config import TrainingConfig
from mmjepa.training.engine import run_training
from mmjepa.training.pretrain import PretrainParts, PretrainTask
from mmjepa.training.task import Task


@dataclass
class TrainConfig(TrainingConfig):
    """``task: pretrain`` needs model, masking, objective and data; ``task: align`` encoder, text, data and align."""

    task: str = "pretrain"
    model: ModelConfig | None = None
    masking: MaskingConfig | None = None
    objective: ObjectiveConfig | None = None
    data: DataConfig | None = None
    encoder: EncoderConfig | None = None
    text: TextConfig | None = None
    align: AlignConfig | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task not in ("pretrain", "align"):
            raise UserError(f"task '{self.task}' is not known (pretrain or align)")

    def pretrain_parts(self) -> PretrainParts:
        """The groups that pretraining needs; raises UserError if one is absent."""
        if not (self.model and self.masking and self.objective and self.data):
            raise UserError("task pretrain needs the groups model, masking, objective and data")
        return PretrainParts(self.model, self.masking, self.objective, self.data)

    def align_parts(self) -> AlignParts:
        """The groups that alignment needs; raises UserError if one is absent."""
        if not (self.encoder and self.text and self.data and self.align):
            raise UserError("task align needs the groups encoder, text, data and align: give experiment=align")
        return AlignParts(self.encoder, self.text, self.data, self.align)


def train(config: TrainConfig) -> None:
    """Train from the newest checkpoint of ``run`` if there is one, and export the result into the run's folder."""
    build: Callable[[torch.device], Task]
    if config.task == "pretrain":
        build = partial(PretrainTask, config, config.pretrain_parts())
    else:
        build = partial(AlignTask, config, config.align_parts())
    run_training(config, build)
