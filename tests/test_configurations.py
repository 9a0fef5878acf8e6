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


PUBLISHED = {
    "mixed": "baseline baseline_seed42 baseline_seed1337 motion_guided amg hw delta fwm ld fwm_ld hw_ld fwm_hw_ld "
    "combo spectral ltc ac ac_hw fac",
    "ucf101": "baseline motion_guided future_predictive motion_future kinematic kinematic_0_1 kinematic_huber "
    "kinematic_accel kinematic_split kinematic_anneal sigreg sigreg_no_ema hamiltonian velgate",
}
"""Rows of the reference specification's table of variants (section 0)."""
MASK_VARIANTS = {"motion_guided", "amg", "future_predictive", "motion_future"}
WITHOUT_TEACHER = {name for name in PUBLISHED["ucf101"].split() if name.startswith("kinematic")} | {"sigreg_no_ema"}


@pytest.mark.parametrize("regime", PUBLISHED)
def test_every_published_row_has_an_experiment_of_its_name_and_one_on_sprites(regime: str) -> None:
    rows = set(PUBLISHED[regime].split())
    assert rows <= {name.removeprefix(f"{regime}/") for name in EXPERIMENTS}
    assert {row for row in rows if "seed" not in row} <= {name.removeprefix("sprites/") for name in EXPERIMENTS}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiments_are_valid_and_are_what_their_name_says(experiment: str) -> None:
    config = load_config("train", TrainConfig, [f"experiment={experiment}", "run=unused"])
    regime, name = experiment.split("/")
    variant = name.split("_seed")[0].removesuffix("_no_ema")
    assert config.objective is not None
    assert config.masking is not None
    if variant in MASK_VARIANTS:
        assert config.masking.name.removeprefix("sprites_") == variant
        assert config.objective.name == "baseline"
    else:
        assert config.objective.name == variant
        assert (config.masking.motion is not None) == (variant == "combo")
    assert (config.ema is None) == (name in WITHOUT_TEACHER)
    assert f"_seed{config.seed}" in name or "_seed" not in name
    Composite(config.objective, ModelConfig("t", 24, 4, 2, frames=8, resolution=64))
    assert set(config.data.sources) >= ({"motion"} if regime == "sprites" else {"ucf101"})


@pytest.mark.parametrize("size", sorted(path.stem for path in (CONFIG_DIR / "model").glob("*.yaml")))
def test_every_model_size_is_valid(size: str) -> None:
    overrides = [f"model={size}", "run=unused", "data.resolution=224" if size != "sprites" else "data.resolution=64"]
    config = load_config("train", TrainConfig, overrides)
    assert config.model.name == size
    assert len(config.model.taps) == config.model.levels
