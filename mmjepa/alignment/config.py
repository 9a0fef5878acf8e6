"""Settings of fitting a text head on a frozen encoder."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from mmjepa.alignment.heads import HeadConfig
from mmjepa.alignment.losses import LOSSES
from mmjepa.data.config import DataConfig
from mmjepa.errors import UserError
from mmjepa.evaluation.dropout import DropoutCondition
from mmjepa.frozen import EncoderConfig
from mmjepa.text import TextConfig


@dataclass
class TrainingDropout:
    """Frame dropout while fitting: every pattern x fill x rate, drawn evenly per sample, the clean clip among them."""

    rates: list[float] = field(default_factory=list)
    patterns: list[str] = field(default_factory=lambda: ["random"])
    fills: list[str] = field(default_factory=lambda: ["hold"])
    seed: int = 1000

    def __post_init__(self) -> None:
        self.conditions()

    def conditions(self) -> list[DropoutCondition | None]:
        """The clean clip (None) and all conditions. Raises UserError on a rate or name that does not exist."""
        lossy = [
            DropoutCondition(rate, pattern, fill, self.seed)
            for pattern in self.patterns
            for fill in self.fills
            for rate in self.rates
        ]
        return [None, *lossy]


@dataclass
class AlignConfig:
    """How a head is fitted. ``features``: folder of cached features; ``limit``: videos, a fixed random part of them.

    ``holdout`` is the share of training videos that is never trained on and that choices are made by.
    """

    features: str = MISSING
    limit: int | None = None
    encode_batch: int = 32
    holdout: float = 0.1
    loss: str = "info_nce"
    head: HeadConfig = field(default_factory=HeadConfig)
    dropout: TrainingDropout = field(default_factory=TrainingDropout)

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise UserError(f"unknown align.loss '{self.loss}': choose one of {', '.join(LOSSES)}")
        if not 0 < self.holdout < 1:
            raise UserError(f"align.holdout={self.holdout:g} must lie between 0 and 1")
        if self.encode_batch < 1 or (self.limit is not None and self.limit < 1):
            raise UserError("align.encode_batch and align.limit must be at least 1")


@dataclass
class AlignParts:
    """The groups of a configuration that alignment needs.

    Of ``data`` it reads the sources (all of them video, with captions) and ``workers``; how clips are cut, sized and
    normalised is the encoder's business.
    """

    encoder: EncoderConfig
    text: TextConfig
    data: DataConfig
    align: AlignConfig
