"""Networks only: rotary tables, transformer, encoder, predictor, VideoJEPA. No data, losses or training in here."""

from mmjepa.models.config import ModelConfig, PredictorConfig
from mmjepa.models.encoder import Encoder, gather_tokens, patchify
from mmjepa.models.grid import TokenGrid
from mmjepa.models.predictor import Predictor
from mmjepa.models.video_jepa import (
    ClipStatistics,
    Prediction,
    VideoJEPA,
    build_video_jepa,
    normalise_levels,
    standardise_clip,
)

__all__ = [
    "ClipStatistics",
    "Encoder",
    "ModelConfig",
    "Prediction",
    "Predictor",
    "PredictorConfig",
    "TokenGrid",
    "VideoJEPA",
    "build_video_jepa",
    "gather_tokens",
    "normalise_levels",
    "patchify",
    "standardise_clip",
]
