"""The trained part of alignment: video tokens and text embeddings projected into one space, and its files."""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmjepa.alignment.pooler import AttentivePooler
from mmjepa.errors import UserError
from mmjepa.frozen import FrozenSpec, Tokens
from mmjepa.text import TextConfig

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
FORMAT = 2  # 1 held the scale of channels where the whitening is now


@dataclass
class HeadConfig:
    """Sizes of a head.

    channels: of one pooled query. text_residual: adds an MLP to the linear text map. shrinkage: of the whitening of
    tokens (see :func:`mmjepa.frozen.whitening.whitening`); null: channels are scaled, not whitened.
    """

    embedding: int = 128
    queries: int = 4
    heads: int = 4
    channels: int = 128
    hidden: int = 256
    dropout: float = 0.5
    token_dropout: float = 0.5
    text_residual: bool = False
    shrinkage: float | None = 1e-4

    def __post_init__(self) -> None:
        if min(self.embedding, self.queries, self.heads, self.channels, self.hidden) < 1:
            raise UserError("align.head: sizes must be at least 1")
        if self.channels % self.heads:
            raise UserError(f"align.head: {self.channels} channels do not divide into {self.heads} heads")
        if self.shrinkage is not None and not 0 < self.shrinkage < math.inf:
            raise UserError(f"align.head: shrinkage {self.shrinkage:g} must be above 0, or null")
        for name in ("dropout", "token_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"align.head: {name} {getattr(self, name):g} is not in [0, 1)")


class TextProjection(nn.Module):
    """Linear map of text embeddings, plus (optional) a two-layer MLP on top that starts at zero."""

    def __init__(self, width: int, config: HeadConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(width, config.embedding)
        self.residual: nn.Sequential | None = None
        if config.text_residual:
            last = nn.Linear(config.hidden, config.embedding)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.residual = nn.Sequential(nn.Linear(width, config.hidden), nn.GELU(), nn.Dropout(config.dropout), last)

    def forward(self, text: Tensor) -> Tensor:
        """Text embeddings (B, width) -> (B, embedding)."""
        projected = self.linear(text)
        return projected if self.residual is None else projected + self.residual(text)


class AlignmentHead(nn.Module):
    """Attentive pooler and projections into a common space of unit vectors."""

    def __init__(self, config: HeadConfig, token_shape: tuple[int, int, int], text_width: int) -> None:
        super().__init__()
        self.config, self.token_shape, self.text_width = config, token_shape, text_width
        self.pooler = AttentivePooler(
            *token_shape, config.queries, config.heads, config.channels, config.token_dropout, config.shrinkage
        )
        pooled = config.queries * config.channels
        self.video_projection = nn.Sequential(
            nn.LayerNorm(pooled),
            nn.Linear(pooled, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.embedding),
        )
        self.text_projection = TextProjection(text_width, config)

    def embed_video(self, features: Tokens) -> Tensor:
        """Frozen tokens -> unit vectors (B, embedding)."""
        return F.normalize(self.video_projection(self.pooler(features.tokens, features.present)), dim=1)

    def embed_text(self, text: Tensor) -> Tensor:
        """Text-tower embeddings (B, text_width) -> unit vectors (B, embedding)."""
        return F.normalize(self.text_projection(text), dim=1)


@dataclass(frozen=True)
class HeadInfo:
    """What a saved head was fitted on and how well it did on held-out training videos."""

    encoder: str
    encoder_fingerprint: str
    text: TextConfig
    text_tower: str
    seed: int
    step: int
    loss: str
    holdout: dict[str, float]

    def require_encoder(self, spec: FrozenSpec) -> None:
        """Raises UserError if ``spec`` is not the encoder that the head was fitted on."""
        if spec.fingerprint != self.encoder_fingerprint:
            raise UserError(
                f"the head was fitted on encoder {self.encoder} ({self.encoder_fingerprint[:12]}), not on "
                f"{spec.name} ({spec.fingerprint[:12]}): give the same checkpoint, levels, factor, precision and seed"
            )


def save_head(head: AlignmentHead, info: HeadInfo, folder: Path) -> None:
    """Write ``model.safetensors`` and ``config.json``; the folder appears whole, and replaces an older one."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in head.state_dict().items()}
    save_file(weights, partial / WEIGHTS_FILE)
    shape = {"head": asdict(head.config), "token_shape": head.token_shape, "text_width": head.text_width}
    (partial / CONFIG_FILE).write_text(json.dumps({"format": FORMAT, **shape, "info": asdict(info)}, indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def load_head(folder: Path) -> tuple[AlignmentHead, HeadInfo]:
    """Load a head saved by :func:`save_head`, in evaluation mode. Raises UserError if it is missing or damaged."""
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text())
        if config["format"] != FORMAT:
            raise UserError(f"{folder} holds a head of format {config['format']}, not {FORMAT}: fit it again")
        steps, spatial, width = config["token_shape"]
        head = AlignmentHead(HeadConfig(**config["head"]), (steps, spatial, width), config["text_width"])
        info = HeadInfo(**{**config["info"], "text": TextConfig(**config["info"]["text"])})
        head.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except OSError as error:
        raise UserError(f"no alignment head at {folder}: {error}") from error
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder} does not hold an alignment head ({type(error).__name__}: {reason})") from error
    return head.eval().requires_grad_(False), info
