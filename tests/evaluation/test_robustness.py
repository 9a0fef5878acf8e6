"""Robustness scores, hand-worked."""

import math

import numpy as np
import pytest

from mmjepa.evaluation.robustness import (
    absolute_robustness,
    half_rate,
    mean_performance_under_corruption,
    relative_performance_under_corruption,
    relative_robustness,
    retention_area,
)

RATES = [0.0, 0.25, 0.5, 1.0]


def test_scores_of_a_drop_from_40_to_30_percent():
    assert absolute_robustness(0.4, 0.3) == pytest.approx(0.9)
    assert relative_robustness(0.4, 0.3) == pytest.approx(0.75)
    assert mean_performance_under_corruption([0.3, 0.1]) == pytest.approx(0.2)
    assert relative_performance_under_corruption(0.4, [0.3, 0.1]) == pytest.approx(0.5)


def test_area_is_one_when_nothing_is_lost_and_follows_the_trapezoids():
    curves = np.array([[0.4, 0.4, 0.4, 0.4], [0.4, 0.2, 0.2, 0.0], [0.0, 0.1, 0.0, 0.0]])
    area = retention_area(RATES, curves)
    assert area[:2] == pytest.approx([1.0, 0.25 * 0.75 + 0.25 * 0.5 + 0.5 * 0.25])
    assert math.isnan(area[2]), "no clean performance to retain"
    assert retention_area([0.0, 0.5], np.array([0.4, 0.2])) == pytest.approx(0.75)


def test_half_rate_interpolates_and_says_never():
    assert half_rate(RATES, np.array([0.4, 0.3, 0.1, 0.0])) == pytest.approx(0.375)
    assert half_rate(RATES, np.array([0.4, 0.3, 0.2, 0.2])) == pytest.approx(0.5)
    assert math.isnan(half_rate(RATES, np.array([0.4, 0.3, 0.3, 0.21])))
    assert math.isnan(half_rate(RATES, np.zeros(4)))


def test_undefined_relative_scores_are_nan_and_bad_curves_are_refused():
    assert math.isnan(relative_robustness(0.0, 0.1))
    assert math.isnan(relative_performance_under_corruption(0.0, [0.1]))
    for rates in ([0.1, 0.5], [0.0, 0.5, 0.5], [0.0]):
        with pytest.raises(ValueError, match="rise from 0"):
            retention_area(rates, np.ones(len(rates)))
