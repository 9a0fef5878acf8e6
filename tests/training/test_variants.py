"""Every variant's experiment trains: each of its terms is finite, logged, and made from something."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from clips import SIDE, write_splits
from programs import read_curve

from mmjepa.config import CONFIG_DIR, load_config
from mmjepa.objectives.base import registry
from mmjepa.training.engine import run_training
from mmjepa.training.pretrain import PretrainParts, PretrainTask
from mmjepa.training.program import TrainConfig

STEPS = 20
VARIANTS = sorted(path.stem for path in (CONFIG_DIR / "experiment" / "sprites").glob("*.yaml") if path.stem != "common")


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_splits(tmp_path_factory.mktemp("discs"))


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_trains(one_rank: None, discs: Path, tmp_path: Path, variant: str) -> None:
    model = ["model.width=24", "model.depth=4", "model.frames=8", "model.patch=8", f"model.resolution={SIDE}"]
    model += ["model.predictor.width=24", "model.predictor.heads=2"]
    data = [f"data.root={discs}", "data.frames=8", "data.stride=1", f"data.resolution={SIDE}", "data.workers=0"]
    steps = [f"steps={STEPS}", "batch_size=8", "optimizer.warmup_steps=2", "log.every=1", "health.every=100"]
    overrides = [f"experiment=sprites/{variant}", f"run={tmp_path}", *model, *data, *steps]
    config = load_config("train", TrainConfig, overrides)
    run_training(config, lambda device: PretrainTask(config, PretrainParts(**config.parts()), device))
    curve = read_curve(tmp_path)
    assert len(curve) == STEPS
    assert config.objective is not None
    for objective in config.objective.objectives:
        for term in registry()[objective].terms:
            values = [row[term] for row in curve]
            assert all(map(math.isfinite, values)), term
            assert any(value > 0 for value in values), term
            if f"{term}_valid" in curve[0]:
                assert any(row[f"{term}_valid"] > 0 for row in curve), term
