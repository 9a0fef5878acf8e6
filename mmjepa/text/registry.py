"""From configuration to a text tower: one builder per ``kind``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import MISSING

from mmjepa.errors import UserError
from mmjepa.precision import fastest_precision
from mmjepa.text.open_clip import OpenClipTower
from mmjepa.text.protocol import TextTower
from mmjepa.text.sentence_transformers import SentenceTransformerTower


@dataclass
class TextConfig:
    """Which frozen text tower. ``pretrained`` is the weights' tag of an open_clip model (null: random weights).

    ``cache``: folder to keep embeddings in between programs; null keeps none. ``precision`` of matrix products: fp32,
    bf16, or auto (bf16 where the hardware multiplies it), which is resolved here, so that a head says what it saw.
    """

    kind: str = MISSING
    model: str = MISSING
    pretrained: str | None = None
    batch: int = 64
    precision: str = "auto"
    cache: str | None = None

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UserError("text.batch must be at least 1")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise UserError(f"text.precision={self.precision}: choose auto, bf16 or fp32")
        if self.precision == "auto":
            self.precision = fastest_precision()


def _sentence_transformers(config: TextConfig, device: torch.device) -> TextTower:
    if config.pretrained is not None:
        raise UserError(
            "text.pretrained is for open_clip towers; sentence_transformers weights are named by text.model"
        )
    return SentenceTransformerTower(config.model, config.batch, device)


def _open_clip(config: TextConfig, device: torch.device) -> TextTower:
    return OpenClipTower(config.model, config.pretrained, config.batch, device)


BUILDERS: dict[str, Callable[[TextConfig, torch.device], TextTower]] = {
    "sentence_transformers": _sentence_transformers,
    "open_clip": _open_clip,
}


def build_text_tower(config: TextConfig, device: torch.device) -> TextTower:
    """Build the text tower that ``config`` names. Raises UserError for an unknown kind or an unloadable model."""
    if config.kind not in BUILDERS:
        raise UserError(f"unknown text tower kind '{config.kind}' (known: {', '.join(sorted(BUILDERS))})")
    tower = BUILDERS[config.kind](config, device)
    tower.bf16_on = device.type if config.precision == "bf16" else None
    tower.cache = None if config.cache is None else Path(config.cache)
    return tower
