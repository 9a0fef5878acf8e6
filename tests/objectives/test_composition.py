"""Composing objectives from configuration: weights, schedules, and clear refusals."""

from __future__ import annotations

from typing import Any

import pytest

from mmjepa.errors import UserError
from mmjepa.models import ModelConfig
from mmjepa.objectives import Composite, FactorConfig, ObjectiveConfig, Weight

MODEL = ModelConfig("t", 24, 4, 2, frames=8, resolution=64, patch=16)
JEPA: dict[str, Any] = {"weights": {"predict": 1.0, "context": 0.5}}


def test_weight_schedules() -> None:
    ramp = Weight.parse("w", {"value": 0.5, "ramp": [0.5, 1.0]})
    assert [ramp.at(p) for p in (0.0, 0.5, 0.75, 1.0)] == [0.0, 0.0, 0.25, 0.5]
    anneal = Weight.parse("w", {"value": 0.1, "anneal": True})
    assert [round(anneal.at(p), 9) for p in (0.0, 0.5, 1.0)] == [0.1, 0.05, 0.0]
    assert Weight.parse("w", 2).at(0.3) == 2.0


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ({"jepas": JEPA}, "unknown objective 'jepas'; known are action"),
        ({"jepa": {**JEPA, "expnent": 1}}, "unknown key 'expnent'"),
        ({"jepa": {"weights": {"predict": 1.0}}}, "give weights.context"),
        ({"jepa": {"weights": {"predict": 1.0, "contxt": 1.0}}}, "no term 'contxt'"),
        ({"jepa": {"weights": {"predict": 1.0, "context": {"value": 1, "ramp": [1, 0]}}}}, "two rising numbers"),
        (
            {"jepa": {"weights": {"predict": 1.0, "context": {"value": 1, "anneal": "no"}}}},
            "anneal must be true or false",
        ),
        ({"jepa": JEPA, "latent_dynamics": {"weights": {"latent_dynamics": 1}, "inputs": "some"}}, "all, dynamics"),
        ({}, "at least one objective"),
    ],
)
def test_mistakes_are_refused_in_one_line(objectives: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Composite(ObjectiveConfig("x", FactorConfig(), objectives), MODEL)
    assert "\n" not in str(caught.value)


def test_unknown_split_is_refused() -> None:
    with pytest.raises(UserError, match="within_level, across_levels"):
        FactorConfig(split="between_layers")
