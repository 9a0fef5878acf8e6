"""A nano Video-JEPA with random weights, exported the way training exports it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmjepa.frozen.checkpoint import ExportedEncoder, load_exported
from mmjepa.models import ModelConfig, PredictorConfig, build_video_jepa
from mmjepa.training.export import export_encoder

CONFIG = ModelConfig("test", 24, 4, 2, 2.0, 4, 8, 32, 2, 16, predictor=PredictorConfig(24, 1, 2))


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an exported encoder: 8 frames of 32 pixels, 4 x 2 x 2 tokens, width 24, norms with a real affine."""
    folder = tmp_path_factory.mktemp("run") / "encoder"
    torch.manual_seed(0)
    model = build_video_jepa(CONFIG)
    for norm in model.encoder.norms:
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias, std=0.3)
    facts = {
        "model": CONFIG,
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.25, 0.3],
        "seed": 7,
        "objective": {"targets": "level", "factors": {"split": "within_level", "appearance_share": 0.25}},
    }
    export_encoder(folder, model.encoder, model.predictor, torch.nn.Module(), facts)
    return folder


@pytest.fixture
def exported(export: Path) -> ExportedEncoder:
    exported = load_exported(export)
    exported.model.requires_grad_(False)
    return exported
