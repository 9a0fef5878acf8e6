"""Every shipped experiment composes into a valid configuration, so that no cluster job dies on a typo."""

from __future__ import annotations

import pytest

from mmjepa.config import CONFIG_DIR, load_config
from mmjepa.models import ModelConfig
from mmjepa.objectives import Composite
from mmjepa.training.program import TrainConfig

EXPERIMENTS = sorted(
    str(path.relative_to(CONFIG_DIR / "experiment").with_suffix(""))
    for path in (CONFIG_DIR / "experiment").glob("*/*.yaml")
    if path.stem != "common"
)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiments_are_valid_and_named_after_their_objective(experiment: str) -> None:
    config = load_config("train", TrainConfig, [f"experiment={experiment}", "run=unused"])
    regime, variant = experiment.split("/")
    assert config.objective is not None
    assert config.objective.name == variant
    Composite(config.objective, ModelConfig("t", 24, 4, 2, frames=8, resolution=64))
    assert set(config.data.sources) >= ({"motion"} if regime == "sprites" else {"ucf101"})


@pytest.mark.parametrize("size", sorted(path.stem for path in (CONFIG_DIR / "model").glob("*.yaml")))
def test_every_model_size_is_valid(size: str) -> None:
    overrides = [f"model={size}", "run=unused", "data.resolution=224" if size != "sprites" else "data.resolution=64"]
    config = load_config("train", TrainConfig, overrides)
    assert config.model.name == size
    assert len(config.model.taps) == config.model.levels
