"""Intervals and tests that can be believed: cluster and hierarchical bootstrap, paired differences, Holm correction.

The unit that is resampled is the video: captions of one video stay together (``clusters``). With several pretraining
seeds, seeds and videos are resampled independently of each other and crossed (Owen 2007, "The pigeonhole bootstrap"),
because every seed is evaluated on the same videos; drawing videos anew for every seed would average out how hard the
videos are and give intervals that are too narrow. With S seeds the variance between seeds is still underestimated by
about (S - 1) / S, so few seeds remain few seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
_BLOCK_ENTRIES = 2**23  # entries of one block of resampling weights: 64 MiB

# Maps values (N, ...) and resampling weights (R, N) to one value per resample, (R,).
Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Interval:
    """A value and its two-sided percentile bootstrap interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """Difference a - b on the same queries, its interval, and the two-sided p-value against no difference."""

    difference: float
    low: float
    high: float
    p_value: float


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of values (N, ...) under each row of weights (R, N): (R, ...)."""
    total = weights.sum(axis=1).reshape(-1, *([1] * (values.ndim - 1)))
    return np.tensordot(weights, values, axes=1) / total


def weighted_median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Median of values (N,), each repeated as often as the integer weights (R, N) say: (R,)."""
    order = np.argsort(values, kind="stable")
    counted = np.cumsum(weights[:, order], axis=1)
    total = counted[:, -1:]
    lower = (counted >= (total + 1) // 2).argmax(axis=1)
    upper = (counted >= total // 2 + 1).argmax(axis=1)
    return (values[order][lower] + values[order][upper]) / 2


def bootstrap_interval(
    values: np.ndarray,
    clusters: np.ndarray | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    statistic: Statistic = weighted_mean,
) -> Interval:
    """Interval of a statistic of per-query ``values`` (N,), resampling clusters (videos) with replacement.

    clusters: (N,) label of the video of each query; None: every query is its own video. statistic: ``weighted_mean``
    (R@K, MnR, accuracy), ``weighted_median`` (MedR), or any :data:`Statistic`; ``values`` may then be (N, ...), for
    instance one column per dropout rate. Raises ValueError on empty or non-finite values.
    """
    return hierarchical_bootstrap([values], clusters, seed, resamples, level, statistic)


def hierarchical_bootstrap(
    values_by_seed: Sequence[np.ndarray],
    clusters: np.ndarray | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    statistic: Statistic = weighted_mean,
) -> Interval:
    """Interval of the mean over pretraining seeds of a statistic, resampling seeds and videos (see the module).

    values_by_seed: one array (N, ...) per seed, the same queries in the same order. With one seed this is
    :func:`bootstrap_interval`.
    """
    stacked = _checked(values_by_seed)
    draws = _resampled(stacked, clusters, seed, resamples, statistic)
    low, high = _percentiles(draws, level)
    return Interval(_estimate(stacked, statistic), low, high)


def paired_difference(
    a: np.ndarray,
    b: np.ndarray,
    clusters: np.ndarray | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    statistic: Statistic = weighted_mean,
) -> PairedDifference:
    """Difference statistic(a) - statistic(b) of per-query values (N,) of two encoders on the same queries.

    Both sides see the same resampled videos. The p-value inverts the percentile interval: it is twice the share of
    resampled differences on the far side of zero (counting the observed one), so that p < 1 - level exactly where the
    interval leaves zero out, up to one resample.
    """
    return hierarchical_paired_difference([a], [b], clusters, seed, resamples, level, statistic)


def hierarchical_paired_difference(
    a_by_seed: Sequence[np.ndarray],
    b_by_seed: Sequence[np.ndarray],
    clusters: np.ndarray | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    statistic: Statistic = weighted_mean,
) -> PairedDifference:
    """:func:`paired_difference` over seed-matched runs: a_by_seed[i] and b_by_seed[i] share pretraining seed i."""
    a, b = _checked(a_by_seed), _checked(b_by_seed)
    if a.shape != b.shape:
        raise ValueError(f"paired values differ in shape: {a.shape} and {b.shape}")
    # Equal seeds draw equal resamples, which is what pairs the two sides.
    draws = _resampled(a, clusters, seed, resamples, statistic) - _resampled(b, clusters, seed, resamples, statistic)
    low, high = _percentiles(draws, level)
    far_side = min((draws <= 0).sum(), (draws >= 0).sum())
    p_value = min(1.0, 2 * (1 + far_side) / (1 + resamples))
    return PairedDifference(_estimate(a, statistic) - _estimate(b, statistic), low, high, float(p_value))


def holm_correction(p_values: Sequence[float]) -> np.ndarray:
    """p-values adjusted for multiple comparisons by Holm's step-down method (Holm 1979), in the order given.

    Raises ValueError on a p-value outside [0, 1].
    """
    p = np.asarray(p_values, dtype=float)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must lie in [0, 1], got {p.tolist()}")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def _checked(values_by_seed: Sequence[np.ndarray]) -> np.ndarray:
    """The values of all seeds as one float64 array (S, N, ...)."""
    stacked = np.stack([np.asarray(values, dtype=np.float64) for values in values_by_seed])
    if stacked.ndim < 2 or stacked.shape[1] == 0:
        raise ValueError("no values to resample")
    if not np.isfinite(stacked).all():
        raise ValueError("values are not finite")
    return stacked


def _estimate(stacked: np.ndarray, statistic: Statistic) -> float:
    once = np.ones((1, stacked.shape[1]), dtype=np.int64)
    return float(np.mean([statistic(values, once)[0] for values in stacked]))


def _resampled(
    stacked: np.ndarray, clusters: np.ndarray | None, seed: int, resamples: int, statistic: Statistic
) -> np.ndarray:
    """Mean over resampled seeds of the statistic on resampled videos, from values (S, N, ...): (resamples,)."""
    seeds, queries = stacked.shape[:2]
    generator = np.random.default_rng(seed)
    seed_weights = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    blocks = [
        np.stack([statistic(values, weights) for values in stacked], axis=1)
        for weights in _query_weights(queries, clusters, resamples, generator)
    ]
    return (np.concatenate(blocks) * seed_weights).sum(axis=1) / seeds


def _query_weights(
    queries: int, clusters: np.ndarray | None, resamples: int, generator: np.random.Generator
) -> Iterator[np.ndarray]:
    """Blocks (R, queries) of how often each query is drawn when whole clusters are drawn with replacement."""
    if clusters is not None and len(clusters) != queries:
        raise ValueError(f"{len(clusters)} cluster labels for {queries} values")
    members = np.arange(queries) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    count = int(members.max()) + 1
    rows = max(1, _BLOCK_ENTRIES // queries)
    for start in range(0, resamples, rows):
        drawn = generator.multinomial(count, np.full(count, 1 / count), size=min(rows, resamples - start))
        yield drawn[:, members]


def _percentiles(draws: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
