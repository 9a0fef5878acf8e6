"""Bootstrap intervals and tests against SciPy, naive loops, coverage on simulated data, and hand-worked numbers."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjepa.evaluation.robustness import retention_area
from mmjepa.evaluation.statistics import (
    bootstrap_interval,
    hierarchical_bootstrap,
    hierarchical_paired_difference,
    holm_correction,
    paired_difference,
    paired_differences,
    weighted_mean,
    weighted_median,
)


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 3)), min_size=1, max_size=12))
@settings(deadline=None)
def test_weighted_statistics_are_those_of_repeated_values(pairs):
    values, weights = np.array([v for v, _ in pairs], float), np.array([w for _, w in pairs])
    weights[0] += 1
    repeated = np.repeat(values, weights)
    assert weighted_median(values, weights[None])[0] == np.median(repeated)
    assert weighted_mean(values, weights[None])[0] == pytest.approx(repeated.mean())


@pytest.mark.parametrize(("statistic", "reference"), [(weighted_mean, np.mean), (weighted_median, np.median)])
def test_interval_agrees_with_scipy(statistic, reference):
    values = np.random.default_rng(0).exponential(size=301)
    ours = bootstrap_interval(values, seed=1, resamples=8000, statistic=statistic)
    theirs = scipy.stats.bootstrap((values,), reference, n_resamples=8000, method="percentile", rng=2)
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert ours.estimate == pytest.approx(reference(values))
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.06 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.06 * width)


def test_captions_of_one_video_stay_together():
    # Five equal captions per video carry the information of one: the interval is that of the videos alone.
    rng = np.random.default_rng(3)
    per_video = rng.integers(0, 2, size=200).astype(float)
    videos = rng.permutation(np.repeat(np.arange(200), 5))
    clustered = bootstrap_interval(per_video[videos], clusters=np.array([f"v{v}" for v in videos]), resamples=4000)
    alone = bootstrap_interval(per_video, resamples=4000)
    naive = bootstrap_interval(per_video[videos], resamples=4000)
    assert clustered.high - clustered.low == pytest.approx(alone.high - alone.low, rel=0.08)
    assert clustered.high - clustered.low > 1.8 * (naive.high - naive.low)


def test_clusters_of_unequal_size_agree_with_a_naive_loop():
    rng = np.random.default_rng(4)
    clusters = rng.integers(0, 40, size=150)
    values = rng.normal(size=150) + clusters / 10
    names = np.unique(clusters)
    draws = []
    for _ in range(4000):
        drawn = rng.choice(names, size=len(names))
        draws.append(np.concatenate([values[clusters == name] for name in drawn]).mean())
    ours = bootstrap_interval(values, clusters, resamples=4000)
    assert [ours.low, ours.high] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.08)


def test_intervals_over_seeds_agree_with_a_naive_crossed_loop():
    rng = np.random.default_rng(5)
    difficulty = rng.normal(size=80)
    runs = [difficulty + offset + 0.2 * rng.normal(size=80) for offset in (-1.0, 0.0, 0.4, 0.6)]
    draws = []
    for _ in range(4000):
        videos, seeds = rng.integers(0, 80, 80), rng.integers(0, 4, 4)
        draws.append(np.mean([runs[seed][videos].mean() for seed in seeds]))
    ours = hierarchical_bootstrap(runs, resamples=4000)
    assert ours.estimate == pytest.approx(np.mean(runs))
    assert [ours.low, ours.high] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.06)
    one_seed = bootstrap_interval(runs[0], resamples=4000)
    assert ours.high - ours.low > one_seed.high - one_seed.low, "seeds must add to the uncertainty"


def test_an_interval_of_a_curve_statistic():
    # 100 videos at three rates; half of them lose everything at rate 0.5, and all at rate 1: area known exactly.
    values = np.ones((100, 3))
    values[:50, 1], values[:, 2] = 0.0, 0.0

    def area(curves: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return retention_area([0.0, 0.5, 1.0], weighted_mean(curves, weights))

    interval = bootstrap_interval(values, statistic=area)
    assert interval.estimate == pytest.approx(0.5)
    assert interval.low < 0.5 < interval.high
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.5 * 0.05, rel=0.1)


def test_pairing_sees_a_small_difference_that_separate_intervals_hide():
    rng = np.random.default_rng(6)
    difficulty = rng.normal(size=300)
    a, b = difficulty + 0.05 + 0.1 * rng.normal(size=300), difficulty + 0.1 * rng.normal(size=300)
    apart = bootstrap_interval(a), bootstrap_interval(b)
    assert apart[0].low < apart[1].high, "the unpaired intervals overlap"
    paired = paired_difference(a, b)
    test = scipy.stats.ttest_rel(a, b)
    assert paired.p_value < 0.01
    assert [paired.low, paired.high] == pytest.approx(list(test.confidence_interval()), abs=0.003)
    reverse = paired_difference(b, a)
    assert (reverse.difference, reverse.p_value) == pytest.approx((-paired.difference, paired.p_value))
    assert paired_difference(a, a).p_value == 1.0


def test_without_a_difference_five_percent_are_called_significant():
    rng = np.random.default_rng(7)
    p_values = []
    for trial in range(250):
        a, b = rng.integers(0, 2, size=(2, 120))
        p_values.append(paired_difference(a, b, seed=trial, resamples=300).p_value)
    assert 0.015 < np.mean(np.array(p_values) < 0.05) < 0.09
    assert 0.4 < np.mean(np.array(p_values) < 0.5) < 0.6


def test_seed_matched_difference_cancels_what_the_seeds_share():
    rng = np.random.default_rng(8)
    base = [offset + rng.normal(size=100) for offset in (-2.0, 0.0, 3.0)]
    better = [run + 0.3 + 0.05 * rng.normal(size=100) for run in base]
    difference = hierarchical_paired_difference(better, base)
    assert difference.low > 0.25
    assert difference.high < 0.35


@pytest.mark.parametrize("spreads", [(0.4,) * 8, (0.1,) * 4 + (0.8,) * 4], ids=["alike", "unlike"])
def test_three_lucky_seeds_are_not_significant(spreads):
    # No objective differs from the baseline, only seeds do: three differences of one sign, or near each other by
    # accident, must not look certain, or Holm's correction is of no use.
    rng = np.random.default_rng(9)
    named = []
    for trial in range(100):
        hard = rng.normal(size=120)
        base, *others = ([hard < level for level in rng.normal(-0.5, s, size=3)] for s in (spreads[0], *spreads))
        compared = paired_differences([(other, base) for other in others], seed=trial, resamples=100)
        named.append(holm_correction([one.p_value for one in compared]).min() < 0.05)
    assert np.mean(named) < 0.12


def test_holm_hand_worked():
    assert holm_correction([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_correction([0.9, 0.6]) == pytest.approx([1.0, 1.0])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        holm_correction([0.5, float("nan")])


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        bootstrap_interval(np.array([0.0, np.nan]))
    with pytest.raises(ValueError, match="no values"):
        bootstrap_interval(np.array([]))
    with pytest.raises(ValueError, match="2 cluster labels for 3 values"):
        bootstrap_interval(np.zeros(3), clusters=np.zeros(2))
