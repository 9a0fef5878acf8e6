"""Intervals and tests that can be believed: cluster and hierarchical bootstrap, paired differences, Holm correction.

The unit that is resampled is the video: captions of one video stay together (``clusters``). With several pretraining
seeds, seeds and videos are resampled independently of each other and crossed (Owen 2007, "The pigeonhole bootstrap"),
because every seed is evaluated on the same videos; drawing videos anew for every seed would average out how hard the
videos are and give intervals that are too narrow.

With S seeds that bootstrap underestimates the variance between seeds by about (S - 1) / S and does not know how little
S seeds say about it: an interval of a level can stand that, a test cannot. Three seeds whose differences share a sign,
one draw in four without any effect, would get the smallest possible p-value, which no correction for many comparisons
undoes. Paired differences over seeds are therefore tested with Student's t, the variance between seeds beside that of
the videos. Three seeds may also agree by accident, so the variance between seeds is pooled over everything that is
compared at once (:func:`paired_differences`), and what varies more than the others keeps its own. Simulated without
any effect, Holm corrected studies of three seeds then name something in about one of twenty, whether the encoders'
seeds spread alike or not (tests/evaluation/test_statistics.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

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
    return paired_differences([(a_by_seed, b_by_seed)], clusters, seed, resamples, level, statistic)[0]


def paired_differences(
    pairs: Sequence[tuple[Sequence[np.ndarray], Sequence[np.ndarray]]],
    clusters: np.ndarray | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    statistic: Statistic = weighted_mean,
) -> list[PairedDifference]:
    """Differences of several (a_by_seed, b_by_seed), all of one quantity: several encoders against one other.

    Of one seed: as :func:`paired_difference`. From two seeds on, interval and p-value are those of Student's t. The
    variance of the mean difference is that over resampled videos, which the seeds share, plus that between seeds over
    S: the mean over all pairs, or the pair's own where it is larger. Degrees of freedom are Welch and Satterthwaite's;
    pairs share their other side, so that pooling counts half. What differs by video and seed at once is in both parts,
    which errs on the safe side.
    """
    found = [_Differences.of(a, b, clusters, seed, resamples, statistic) for a, b in pairs]
    several = [one for one in found if len(one.by_seed) > 1]
    pooled = float(np.mean([one.between for one in several])) if several else 0.0
    seeds_freedom = sum(len(one.by_seed) - 1 for one in several) / 2
    return [
        one.student(pooled, seeds_freedom, level) if len(one.by_seed) > 1 else one.percentile(level) for one in found
    ]


@dataclass(frozen=True)
class _Differences:
    """Of one pair: difference of every seed (S,), the same on resampled videos (R, S), and the number of videos."""

    by_seed: np.ndarray
    draws: np.ndarray
    videos: int

    @staticmethod
    def of(
        a_by_seed: Sequence[np.ndarray],
        b_by_seed: Sequence[np.ndarray],
        clusters: np.ndarray | None,
        seed: int,
        resamples: int,
        statistic: Statistic,
    ) -> _Differences:
        a, b = _checked(a_by_seed), _checked(b_by_seed)
        if a.shape != b.shape:
            raise ValueError(f"paired values differ in shape: {a.shape} and {b.shape}")
        # Equal seeds draw equal resamples, which is what pairs the two sides.
        draws = _by_seed(a, clusters, seed, resamples, statistic) - _by_seed(b, clusters, seed, resamples, statistic)
        once = np.ones((1, a.shape[1]), dtype=np.int64)
        by_seed = np.array([statistic(x, once)[0] - statistic(y, once)[0] for x, y in zip(a, b, strict=True)])
        return _Differences(by_seed, draws, a.shape[1] if clusters is None else len(np.unique(clusters)))

    @property
    def between(self) -> float:
        """Variance that the seeds give to their mean."""
        return float(self.by_seed.var(ddof=1)) / len(self.by_seed)

    def percentile(self, level: float) -> PairedDifference:
        """Interval and p-value of the bootstrap over videos, for one seed."""
        low, high = _percentiles(self.draws[:, 0], level)
        far_side = min((self.draws <= 0).sum(), (self.draws >= 0).sum())
        p_value = min(1.0, 2 * (1 + far_side) / (1 + len(self.draws)))
        return PairedDifference(float(self.by_seed[0]), low, high, float(p_value))

    def student(self, pooled: float, pooled_freedom: float, level: float) -> PairedDifference:
        """t interval and test; ``pooled``: variance between seeds of all pairs, with its degrees of freedom."""
        value = float(self.by_seed.mean())
        video = float(self.draws.mean(axis=1).var(ddof=1))
        between = max(self.between, pooled)
        seeds_freedom = max(len(self.by_seed) - 1, pooled_freedom)
        variance = video + between
        if variance == 0.0:  # every resample of every seed says the same
            return PairedDifference(value, value, value, 1.0 if value == 0.0 else 0.0)
        freedom = variance**2 / (video**2 / (self.videos - 1) + between**2 / seeds_freedom)
        half = float(student_t.ppf((1 + level) / 2, freedom)) * variance**0.5
        p_value = float(2 * student_t.sf(abs(value) / variance**0.5, freedom))
        return PairedDifference(value, value - half, value + half, p_value)


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
    seeds = stacked.shape[0]
    seed_weights = np.random.default_rng([seed, 1]).multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    return (_by_seed(stacked, clusters, seed, resamples, statistic) * seed_weights).sum(axis=1) / seeds


def _by_seed(
    stacked: np.ndarray, clusters: np.ndarray | None, seed: int, resamples: int, statistic: Statistic
) -> np.ndarray:
    """Statistic of every seed on resampled videos, the same for all seeds, from values (S, N, ...): (resamples, S)."""
    generator = np.random.default_rng(seed)
    blocks = [
        np.stack([statistic(values, weights) for values in stacked], axis=1)
        for weights in _query_weights(stacked.shape[1], clusters, resamples, generator)
    ]
    return np.concatenate(blocks)


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
