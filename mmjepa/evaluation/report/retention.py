"""Retrieval as frames are lost: curves over the dropout rate, and the scores that sum them up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmjepa.evaluation.report.hits import Hits
from mmjepa.evaluation.report.rows import Estimate, Results, RetrievalRow, distinct, join_seeds, where
from mmjepa.evaluation.robustness import (
    absolute_robustness,
    half_rate,
    mean_performance_under_corruption,
    relative_robustness,
    retention_area,
)
from mmjepa.evaluation.statistics import hierarchical_bootstrap, weighted_mean

SHARE_RESAMPLES = 500


@dataclass(frozen=True)
class Curve:
    """A metric of one encoder against the share of frames lost, under one pattern and fill. The first rate is 0."""

    encoder: str
    pattern: str
    fill: str
    rates: list[float]
    estimates: list[Estimate]

    @property
    def clean(self) -> Estimate:
        """The estimate with every frame received."""
        return self.estimates[0]


@dataclass(frozen=True)
class RobustnessScores:
    """Scores of a curve of shares; NaN where undefined (clean 0) or, for ``half_rate``, never reached.

    ``absolute`` and ``relative`` are Schiappa et al. 2022 (arXiv 2207.02159) of the mean over all rates above 0.
    """

    absolute: float
    relative: float
    area: float
    half_rate: float


def clean_estimate(results: Results, encoder: str, direction: str, metric: str) -> Estimate | None:
    """The metric with no frame lost, whatever pattern and fill its rows name."""
    return join_seeds(where(results.retrieval, encoder=encoder, direction=direction, metric=metric, rate=0.0))


def lossy_conditions(results: Results) -> list[tuple[str, str]]:
    """(pattern, fill) pairs under which any frame was lost, patterns together, in order of first appearance."""
    lossy = [row for row in results.retrieval if row.rate > 0]
    fills = distinct(lossy, "fill")
    measured = {(row.pattern, row.fill) for row in lossy}
    return [(p, f) for p in distinct(lossy, "pattern") for f in fills if (p, f) in measured]


def retention_curve(
    results: Results, encoder: str, pattern: str, fill: str, direction: str = "text_to_video", metric: str = "R@1"
) -> Curve | None:
    """The curve of one encoder under one condition; None where it was not measured with loss or not without."""
    rows = where(results.retrieval, encoder=encoder, direction=direction, metric=metric)
    lossy = [row for row in where(rows, pattern=pattern, fill=fill) if row.rate > 0]
    if not lossy:
        return None
    points: dict[float, list[RetrievalRow]] = {0.0: where(rows, rate=0.0)}
    for row in sorted(lossy, key=lambda one: one.rate):
        points.setdefault(row.rate, []).append(row)
    estimates = [join_seeds(group) for group in points.values()]
    if estimates[0] is None:
        return None
    return Curve(encoder, pattern, fill, list(points), [one for one in estimates if one is not None])


def retained(curve: Curve, hits: Mapping[int, Hits]) -> list[Estimate] | None:
    """R@1 at each rate as a share of the clean R@1; None if the clean R@1 is 0 (the share is undefined).

    Intervals come from the hits per query by seed: clean and lossy hits of the same resampled videos and seeds, so that
    what they have in common cancels. Without hits the bounds equal the value.
    """
    clean = curve.clean.value
    if clean == 0:
        return None
    shares = []
    for rate, one in zip(curve.rates, curve.estimates, strict=True):
        pairs = [
            (run.mean_over(curve.pattern, curve.fill, 0.0), run.mean_over(curve.pattern, curve.fill, rate))
            for run in hits.values()
        ]
        values = [
            np.stack([before, after], axis=1) for before, after in pairs if before is not None and after is not None
        ]
        share = one.value / clean
        low, high = (share, share) if not values else _share_interval(values, next(iter(hits.values())).video)
        shares.append(Estimate(share, low, high, one.seeds))
    return shares


def _share_interval(values: Sequence[np.ndarray], video: np.ndarray) -> tuple[float, float]:
    """95 % interval of mean lossy hits / mean clean hits, from (Q, 2) per seed: clean and lossy hits of each query."""
    interval = hierarchical_bootstrap(values, video, resamples=SHARE_RESAMPLES, statistic=_ratio_of_means)
    return interval.low, interval.high


def _ratio_of_means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    means = weighted_mean(values, weights)
    # A resample without any clean hit keeps everything of nothing.
    return np.divide(means[:, 1], means[:, 0], out=np.ones(len(means)), where=means[:, 0] > 0)


def robustness(curve: Curve) -> RobustnessScores:
    """Absolute and relative robustness, area under the retention curve, and the rate at which the metric halves."""
    values = np.array([one.value for one in curve.estimates])
    lossy = mean_performance_under_corruption(values[1:].tolist())
    return RobustnessScores(
        absolute_robustness(curve.clean.value, lossy),
        relative_robustness(curve.clean.value, lossy),
        float(retention_area(curve.rates, values)),
        half_rate(curve.rates, values),
    )


def share_text(value: float) -> str:
    """``0.87``, or ``undefined`` for NaN."""
    return "undefined" if math.isnan(value) else f"{value:.2f}"
