"""Networks against outputs of the public reference implementation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import golden_files, load
from torch import Tensor

from mmjepa.models import ModelConfig, PredictorConfig, VideoJEPA, build_video_jepa
from mmjepa.models.public import encoder_state, predictor_state


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize(
        "path", golden_files(metafunc.config, "model_*.npz"), ids=lambda path: path.stem, scope="module"
    )


@pytest.fixture(scope="module")
def golden(path: Path) -> dict[str, Tensor]:
    arrays = load(path)
    return {
        key: torch.from_numpy(value).float() if value.dtype.kind == "f" else torch.from_numpy(value)
        for key, value in arrays.items()
        if key != "meta"
    }


@pytest.fixture(scope="module")
def model(path: Path, golden: dict[str, Tensor]) -> VideoJEPA:
    meta = json.loads(str(load(path)["meta"]))
    predictor = PredictorConfig(meta["predictor"]["embed_dim"], meta["predictor"]["depth"], meta["predictor"]["heads"])
    config = ModelConfig(
        "golden",
        meta["embed_dim"],
        meta["depth"],
        meta["heads"],
        frames=meta["frames"],
        resolution=meta["image"],
        tubelet=meta["tubelet"],
        patch=meta["patch"],
        predictor=predictor,
    )
    assert list(config.taps) == meta["level_layers"]
    jepa = build_video_jepa(config)
    jepa.encoder.load_state_dict(encoder_state(_part(golden, "encoder/")))
    jepa.predictor.load_state_dict(predictor_state(_part(golden, "predictor/")))
    return jepa.eval()


def _part(golden: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in golden.items() if key.startswith(prefix)}


def _close(ours: Tensor, expected: Tensor) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), expected.numpy(), rtol=1e-5, atol=1e-5)


def test_all_levels_of_the_full_clip(model: VideoJEPA, golden: dict[str, Tensor]) -> None:
    levels = model.encoder(golden["in/clip"])
    _close(levels.flatten(2), golden["expect/levels"])
    _close(levels[:, :, -1], golden["expect/final"])


def test_still_image_takes_its_own_embedding(model: VideoJEPA, golden: dict[str, Tensor]) -> None:
    _close(model.encoder(golden["in/image"])[:, :, -1], golden["expect/image_final"])


def test_non_square_clip(model: VideoJEPA, golden: dict[str, Tensor]) -> None:
    _close(model.encoder(golden["in/clip_96x64"])[:, :, -1], golden["expect/final_96x64"])


@pytest.mark.parametrize("mask", [0, 1])
def test_masked_context_and_predictions(model: VideoJEPA, golden: dict[str, Tensor], mask: int) -> None:
    index = golden[f"in/context_index_{mask}"], golden[f"in/target_index_{mask}"]
    (prediction,) = model(golden["in/clip"], [index])
    _close(prediction.context.flatten(2), golden[f"expect/context_levels_{mask}"])
    _close(prediction.at_target.flatten(2), golden[f"expect/pred_target_{mask}"])
    _close(prediction.at_context.flatten(2), golden[f"expect/pred_context_{mask}"])
