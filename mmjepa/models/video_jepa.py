"""Video-JEPA: the student (encoder and predictor), and what the teacher's tokens go through to become targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from mmjepa.models.config import ModelConfig
from mmjepa.models.encoder import Encoder, patchify
from mmjepa.models.predictor import Predictor

TARGET_NORM_EPS = 1e-5
CLIP_SCALE_FLOOR = 1e-2  # of unit-variance tokens: a blank clip's rounding errors are not blown up


class Prediction(NamedTuple):
    """What the student says about one mask: each (B, tokens, L, D)."""

    context: Tensor
    at_target: Tensor
    at_context: Tensor


class VideoJEPA(nn.Module):
    """Encoder and predictor trained together. The teacher is an average of ``encoder`` kept by the training room."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.predictor = Predictor(config)

    def forward(self, pixels: Tensor, masks: Sequence[tuple[Tensor, Tensor]]) -> list[Prediction]:
        """One prediction per mask; a mask is (context index (B, K), target index (B, P)) on pixels (B, 3, T, H, W)."""
        grid = self.encoder.grid_of(pixels)
        patches = patchify(pixels, grid)
        predictions = []
        for context_index, target_index in masks:
            context = self.encoder(patches, context_index, grid)
            predictions.append(Prediction(context, *self.predictor(context, context_index, target_index, grid)))
        return predictions


def normalise_levels(tokens: Tensor) -> Tensor:
    """Teacher tokens (B, N, L, D) -> regression targets: LayerNorm without affine over each level's channels."""
    return F.layer_norm(tokens.float(), tokens.shape[-1:], eps=TARGET_NORM_EPS)


class ClipStatistics(NamedTuple):
    """Mean token (B, 1, L, D) of a clip's normalised tokens, and the RMS deviation from it (B, 1, L, 1)."""

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, tokens: Tensor) -> ClipStatistics:
        """Statistics of tokens (B, N, L, D) that went through :func:`normalise_levels`."""
        mean = tokens.mean(dim=1, keepdim=True)
        return cls(mean, (tokens - mean).square().mean(dim=(1, 3), keepdim=True).sqrt() + CLIP_SCALE_FLOOR)


def standardise_clip(targets: Tensor) -> Tensor:
    """Targets (B, N, L, D) minus their clip's mean token, in units of the clip's RMS deviation from it.

    The mean token holds what all tokens of a clip share, its ground above all. One scale per clip and level, so that
    the targets cannot be made easy by letting all tokens of a clip become alike.
    """
    statistics = ClipStatistics.of(targets)
    return (targets - statistics.mean) / statistics.scale


def build_video_jepa(config: ModelConfig) -> VideoJEPA:
    """A freshly initialised student; draws from torch's global generator."""
    return VideoJEPA(config)
