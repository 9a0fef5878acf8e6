"""Robustness scores over a curve of metric values (shares, higher is better) against dropout rate.

Relative scores reward weak encoders (a random one loses nothing): show clean, absolute and relative side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def absolute_robustness(clean: float, perturbed: float) -> float:
    """1 - (clean - perturbed), scores as shares in [0, 1]. Schiappa et al. 2022 (arXiv 2207.02159), gamma_a."""
    return 1.0 - (clean - perturbed)


def relative_robustness(clean: float, perturbed: float) -> float:
    """1 - (clean - perturbed) / clean. Schiappa et al. 2022, gamma_r. NaN (undefined) where clean is 0."""
    return 1.0 - (clean - perturbed) / clean if clean else math.nan


def mean_performance_under_corruption(perturbed: Sequence[float]) -> float:
    """mPC: mean score over all corrupted conditions, the clean one left out. Yi et al. 2021 (arXiv 2110.06513)."""
    return float(np.mean(perturbed))


def relative_performance_under_corruption(clean: float, perturbed: Sequence[float]) -> float:
    """rPC = mPC / clean. NaN (undefined) where clean is 0."""
    return mean_performance_under_corruption(perturbed) / clean if clean else math.nan


def retention_area(rates: Sequence[float], values: np.ndarray) -> np.ndarray:
    """Area under values / clean over the rates (trapezoid), divided by their range: 1 = nothing lost at any rate.

    rates: (R,) rising from 0. values: (..., R), the first one clean. Returns (...); NaN (undefined) where clean is 0.
    """
    rates_array, values = _checked_curve(rates, values)
    clean = values[..., :1]
    retained = np.divide(values, clean, out=np.full(values.shape, np.nan), where=clean != 0)
    steps = np.diff(rates_array)
    return ((retained[..., 1:] + retained[..., :-1]) / 2 * steps).sum(axis=-1) / (rates_array[-1] - rates_array[0])


def half_rate(rates: Sequence[float], values: np.ndarray) -> float:
    """Rate at which the value first falls to half of the clean one, linear between rates; NaN means never (or clean 0).

    rates: (R,) rising from 0. values: (R,), the first one clean.
    """
    rates_array, values = _checked_curve(rates, values)
    half = values[0] / 2
    below = np.flatnonzero(values <= half)
    if values[0] == 0 or not len(below):
        return math.nan
    after = below[0]
    before = after - 1
    share = (values[before] - half) / (values[before] - values[after])
    return float(rates_array[before] + share * (rates_array[after] - rates_array[before]))


def _checked_curve(rates: Sequence[float], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rates_array, values = np.asarray(rates, dtype=float), np.asarray(values, dtype=float)
    if len(rates_array) < 2 or rates_array[0] != 0 or (np.diff(rates_array) <= 0).any():
        raise ValueError(f"rates must rise from 0 and be at least two, got {rates_array.tolist()}")
    if values.shape[-1] != len(rates_array):
        raise ValueError(f"{values.shape[-1]} values for {len(rates_array)} rates")
    return rates_array, values
