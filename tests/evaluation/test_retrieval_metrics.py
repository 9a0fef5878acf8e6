"""Retrieval metrics against brute force over all orders of ties, and the faults that other code bases have shown."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjepa.evaluation.retrieval import (
    both_directions,
    caption_positives,
    chance_metrics,
    cosine_scores,
    hard_negative_accuracy,
    retrieval_metrics,
    retrieve,
)


def _brute_force(scores: list[int], positives: list[bool], k: int) -> tuple[float, float]:
    """Mean over every order of the gallery that sorts the scores: (hit at k, rank of the first positive)."""
    gallery = range(len(scores))
    hits, ranks = [], []
    for order in permutations(gallery):
        if all(scores[a] >= scores[b] for a, b in pairwise(order)):
            first = 1 + next(place for place, item in enumerate(order) if positives[item])
            hits.append(first <= k)
            ranks.append(first)
    return float(np.mean(hits)), float(np.mean(ranks))


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6), st.integers(1, 7))
@settings(max_examples=80, deadline=None)
def test_ties_count_by_their_expectation_over_all_orders(items, k):
    scores, positives = [score for score, _ in items], [positive for _, positive in items]
    positives[0] = positives[0] or not any(positives)
    result = retrieval_metrics(np.array([scores], float), np.array([positives]), ks=(k,))
    hit, rank = _brute_force(scores, positives, k)
    assert result.hits[k][0] == pytest.approx(hit, abs=1e-12)
    assert result.rank[0] == pytest.approx(rank, abs=1e-12)


@pytest.mark.parametrize("gallery", [3, 37, 200])
def test_a_constant_embedding_scores_exactly_chance(gallery):
    constant = np.tile(np.random.default_rng(0).normal(size=(1, 48)).astype(np.float32), (gallery, 1))
    texts = np.random.default_rng(1).normal(size=(gallery, 48))
    for queries, candidates in ((texts, constant), (constant, constant)):
        metrics = retrieve(queries, candidates, np.eye(gallery, dtype=bool)).metrics
        for k in (1, 5, 10):
            assert metrics[f"R@{k}"] == pytest.approx(min(k / gallery, 1), abs=1e-12)
        assert metrics["MnR"] == metrics["MedR"] == (gallery + 1) / 2


def test_chance_is_the_score_of_equal_scores():
    positives = np.random.default_rng(3).random((50, 24)) < 0.1
    positives[:, 5] = True
    equal = retrieval_metrics(np.zeros((50, 24)), positives)
    assert chance_metrics(positives) == pytest.approx(equal.metrics)
    assert chance_metrics(positives)["R@1"] == pytest.approx(positives.sum(axis=1).mean() / 24)


def test_metrics_without_ties_agree_with_sorting():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(60, 40))
    positives = rng.random((60, 40)) < 0.05
    positives[np.arange(60), rng.integers(0, 40, 60)] = True
    order = np.argsort(-scores, axis=1)
    rank = 1 + np.array([np.flatnonzero(row[o])[0] for row, o in zip(positives, order, strict=True)])
    result = retrieval_metrics(scores, positives)
    expected = {f"R@{k}": np.mean(rank <= k) for k in (1, 5, 10)} | {"MedR": np.median(rank), "MnR": rank.mean()}
    assert result.metrics == pytest.approx(expected)
    assert result.gallery == 40


def test_chunks_give_what_the_whole_gives():
    rng = np.random.default_rng(2)
    texts, videos = rng.normal(size=(53, 16)).astype(np.float32), rng.normal(size=(31, 16)).astype(np.float32)
    videos[7] = videos[3]
    positives = np.eye(31, dtype=bool)[rng.integers(0, 31, 53)]
    whole, chunked = retrieve(texts, videos, positives), retrieve(texts, videos, positives, chunk=7)
    assert np.array_equal(whole.rank, chunked.rank)
    assert all(np.array_equal(whole.hits[k], chunked.hits[k]) for k in whole.hits)
    assert (whole.rank % 1 != 0).any(), "the equal videos should tie"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_scores_are_refused(bad):
    scores = np.zeros((4, 4))
    scores[2, 1] = bad
    with pytest.raises(ValueError, match="1 of 16 scores are not finite"):
        retrieval_metrics(scores, np.eye(4, dtype=bool))
    embeddings = np.ones((4, 3))
    embeddings[0, 0] = bad
    with pytest.raises(ValueError, match="finite"):
        cosine_scores(embeddings, np.ones((4, 3)))


def test_a_query_without_positive_and_unequal_shapes_are_refused():
    with pytest.raises(ValueError, match="1 queries have no positive"):
        retrieval_metrics(np.eye(3), np.diag([True, True, False]))
    with pytest.raises(ValueError, match="equal, non-empty"):
        retrieval_metrics(np.eye(3), np.ones((3, 2), dtype=bool))
    with pytest.raises(ValueError, match="equal, non-empty"):
        retrieval_metrics(np.empty((0, 3)), np.empty((0, 3), dtype=bool))


def test_equal_captions_of_different_videos_are_all_positives():
    positives = caption_positives(["a cat", "a dog", "a dog", "a bird"], [0, 0, 1, 2], videos=3)
    assert positives.tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_both_directions_use_every_caption_as_query_and_the_best_caption_of_a_video():
    videos = np.eye(3)
    # Video 0 has a bad and a good caption; video 1's caption points to video 2; video 2's to itself.
    texts = np.array([[0.0, 1.0, 0.1], [1.0, 0.0, 0.0], [0.0, 0.2, 1.0], [0.0, 0.0, 1.0]])
    positives = caption_positives(["w", "x", "y", "z"], [0, 0, 1, 2], 3)
    results = both_directions(texts, videos, positives, ks=(1,))
    assert results["text_to_video"].hits[1].tolist() == [0, 1, 0, 1]
    assert results["text_to_video"].rank.tolist() == [3, 1, 2, 1]
    assert results["video_to_text"].hits[1].tolist() == [1, 0, 1]
    assert results["video_to_text"].rank.tolist() == [1, 2, 1]


def test_hard_negatives_count_ties_as_one_half():
    assert hard_negative_accuracy(np.array([3.0, 1.0, 2.0]), np.array([1.0, 3.0, 2.0])).tolist() == [1.0, 0.0, 0.5]
    with pytest.raises(ValueError, match="not finite"):
        hard_negative_accuracy(np.array([np.nan]), np.array([0.0]))
