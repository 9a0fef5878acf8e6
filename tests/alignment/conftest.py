"""The small world's data and its exported encoder, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_world import MODEL, write_videos

from mmjepa.models import build_video_jepa
from mmjepa.training.export import export_encoder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of the splits squares-train (40 videos), squares-test (16), and silent-test (4, without captions)."""
    root = tmp_path_factory.mktemp("data")
    write_videos(root / "squares-train", range(40))
    write_videos(root / "squares-test", range(16))
    write_videos(root / "silent-test", range(4), captions=False)
    return root


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an exported nano encoder with random weights."""
    folder = tmp_path_factory.mktemp("run") / "encoder"
    torch.manual_seed(0)
    model = build_video_jepa(MODEL)
    facts = {
        "model": MODEL,
        "mean": [0.4, 0.4, 0.4],
        "std": [0.2, 0.2, 0.2],
        "seed": 7,
        "objective": {"targets": "level", "factors": {"split": "within_level", "appearance_share": 0.5}},
    }
    export_encoder(folder, model.encoder, model.predictor, torch.nn.Module(), facts)
    return folder
