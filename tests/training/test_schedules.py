"""Schedules: what they promise at every step, for every setting."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmjepa.errors import UserError
from mmjepa.training.config import EmaConfig, OptimizerConfig, TrainingConfig
from mmjepa.training.schedules import ema_momentum, learning_rate

STEPS = st.integers(2, 400)


@given(steps=STEPS, share=st.floats(0, 0.9))
def test_learning_rate_rises_to_its_peak_then_falls_to_its_end(steps: int, share: float) -> None:
    warmup = int(share * (steps - 1))
    config = OptimizerConfig(lr=1.0, start_lr=0.1, final_lr=0.01, warmup_steps=warmup)
    rates = [learning_rate(config, step, steps) for step in range(steps)]
    assert rates[warmup] == pytest.approx(1.0)
    assert all(a < b for a, b in pairwise(rates[: warmup + 1]))
    assert all(a > b for a, b in pairwise(rates[warmup:]))
    assert rates[0] == pytest.approx(0.1 if warmup else 1.0)
    if warmup < steps - 1:
        assert rates[-1] == pytest.approx(0.01)


def test_learning_rate_half_way_is_the_mean_of_peak_and_end() -> None:
    config = OptimizerConfig(lr=1.0, final_lr=0.0, warmup_steps=10)
    assert learning_rate(config, 10 + 50, 111) == pytest.approx(0.5)
    assert learning_rate(config, 10 + 25, 111) == pytest.approx((1 + math.sqrt(0.5)) / 2)


@given(steps=STEPS, momentum=st.floats(0, 1))
def test_momentum_goes_from_its_start_to_its_end(steps: int, momentum: float) -> None:
    config = EmaConfig(momentum, final_momentum=1.0)
    values = [ema_momentum(config, step, steps) for step in range(steps)]
    assert values[0] == pytest.approx(momentum)
    assert values[-1] == pytest.approx(1.0)
    assert values == sorted(values)


def test_equal_ends_make_a_constant_momentum() -> None:
    assert {ema_momentum(EmaConfig(0.99, 0.99), step, 50) for step in range(50)} == {0.99}


@pytest.mark.parametrize(
    "change",
    [{"precision": "fp16"}, {"steps": 0}, {"steps": 50}, {"batch_size": 0}],
    ids=["precision", "no steps", "only warm-up", "no clips"],
)
def test_impossible_settings_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(UserError):
        TrainingConfig(run="r", **change)  # type: ignore[arg-type]
