"""The order of samples: permutations per pass, mixture weights, random access."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mmjepa.data.order import BLOCK, OrderedSource, PassOrder, SampleOrder, WeightedSequence
from mmjepa.data.order import Purpose as P
from mmjepa.errors import UserError


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=40), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_every_pass_visits_every_sample_once(sizes: list[int], seed: int) -> None:
    total = sum(sizes)
    visited = PassOrder(sizes, seed, salt=1).lookup(np.arange(3 * total)).reshape(3, total)
    assert (np.sort(visited, axis=1) == np.arange(total)).all()


def test_passes_and_seeds_differ() -> None:
    first, second = PassOrder([50, 50], 0, salt=1).lookup(np.arange(200)).reshape(2, 100)
    other_seed = PassOrder([50, 50], 1, salt=1).lookup(np.arange(100))
    # Two random permutations of 100 agree in one place on average, in ten or more once in 10^7.
    assert (first == second).sum() < 10
    assert (first == other_seed).sum() < 10


def test_a_pass_touches_few_shards_at_a_time() -> None:
    samples = PassOrder([10] * 160, 0, salt=1).lookup(np.arange(160))
    assert len(np.unique(samples // 10)) == 16


@given(
    weights=st.lists(st.floats(0.05, 5), min_size=1, max_size=5),
    start=st.integers(0, 10 * BLOCK),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=20, deadline=None)
def test_ordinals_count_earlier_occurrences(weights: list[float], start: int, seed: int) -> None:
    """Random access agrees with counting from position 0."""
    sequence = WeightedSequence(weights, seed, P.SOURCE)
    all_choices, _ = sequence.lookup(np.arange(start + 40))
    choices, ordinals = WeightedSequence(weights, seed, P.SOURCE).lookup(np.arange(start, start + 40))
    for offset, (choice, ordinal) in enumerate(zip(choices, ordinals, strict=True)):
        assert choice == all_choices[start + offset]
        assert ordinal == (all_choices[: start + offset] == choice).sum()


def test_mixture_frequencies_match_the_weights() -> None:
    """Chi-square over the first 3,000 draws; and neighbours are independent, so the draws are not a fixed pattern."""
    weights = np.array([0.2, 0.6, 0.2])
    choices, _ = WeightedSequence(weights.tolist(), 0, P.SOURCE).lookup(np.arange(3000))
    assert stats.chisquare(np.bincount(choices), weights * 3000).pvalue > 0.001
    pairs = np.bincount(choices[:-1] * 3 + choices[1:], minlength=9).reshape(3, 3)
    assert stats.chi2_contingency(pairs).pvalue > 0.001


def test_weights_hold_exactly_over_a_block() -> None:
    choices, _ = WeightedSequence([2.0, 6.0, 2.0], 3, P.SOURCE).lookup(np.arange(BLOCK, 2 * BLOCK))
    assert np.bincount(choices).tolist() == [2000, 6000, 2000]


def test_a_weight_too_small_to_ever_come_is_refused() -> None:
    with pytest.raises(UserError, match="mixture weight"):
        WeightedSequence([1.0, 1e-6], 0, P.SOURCE)


@pytest.fixture
def mixture() -> SampleOrder:
    sources = [
        OrderedSource("motion", "video", 0.6, [5, 5]),
        OrderedSource("stills", "image", 0.2, [7]),
        OrderedSource("relations", "video", 0.2, [4, 4]),
    ]
    return SampleOrder(sources, seed=5, rows=8)


def test_batches_are_of_one_kind_and_samples_match_the_weights(mixture: SampleOrder) -> None:
    plans = [mixture.batch(step) for step in range(2000)]
    for plan in plans:
        assert set(plan.sources) <= ({1} if plan.kind == "image" else {0, 2})
    counts = np.bincount(np.concatenate([plan.sources for plan in plans]), minlength=3)
    batches_of_stills = sum(plan.kind == "image" for plan in plans)
    assert stats.binomtest(batches_of_stills, 2000, 0.2).pvalue > 0.001
    assert stats.binomtest(int(counts[0]), int(counts[0] + counts[2]), 0.75).pvalue > 0.001


def test_samples_of_a_source_come_without_replacement_across_batches(mixture: SampleOrder) -> None:
    plans = [mixture.batch(step) for step in range(100)]
    sources, samples = (np.concatenate([getattr(p, name) for p in plans]) for name in ("sources", "samples"))
    for source, size in enumerate((10, 7, 8)):
        drawn = samples[sources == source]
        passes = drawn[: len(drawn) // size * size].reshape(-1, size)
        assert len(passes) > 5
        assert (np.sort(passes, axis=1) == np.arange(size)).all()


def test_positions_are_never_reused(mixture: SampleOrder) -> None:
    positions = np.concatenate([mixture.batch(step).positions for step in range(50)])
    assert len(np.unique(positions)) == len(positions)
