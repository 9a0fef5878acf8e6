"""Text-video retrieval metrics in both directions: R@K, median rank, mean rank, hard-negative accuracy.

A hit at K means that *any* positive lies among the first K (the convention of R@K tables with several positives).
Ties count by their expectation under a random order, so a constant embedding scores exactly chance; non-finite scores
are refused (elsewhere all-NaN scores have counted as perfect retrieval).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RANKS = (1, 5, 10)


@dataclass(frozen=True)
class RetrievalResult:
    """Per-query values of one retrieval direction.

    hits: {K: (Q,) probability that a positive lies among the first K}; rank: (Q,) expected rank of the first positive,
    counted from 1; gallery: number of candidates.
    """

    hits: dict[int, np.ndarray]
    rank: np.ndarray
    gallery: int

    @property
    def per_query(self) -> dict[str, np.ndarray]:
        """The values behind each metric by its name in tables; MedR and MnR are both statistics of the ranks."""
        return {**{f"R@{k}": hit for k, hit in self.hits.items()}, "MedR": self.rank, "MnR": self.rank}

    @property
    def metrics(self) -> dict[str, float]:
        """R@K as shares in [0, 1], MedR and MnR as ranks from 1."""
        recalls = {f"R@{k}": float(hit.mean()) for k, hit in self.hits.items()}
        return {**recalls, "MedR": float(np.median(self.rank)), "MnR": float(self.rank.mean())}


def retrieval_metrics(scores: np.ndarray, positives: np.ndarray, ks: Sequence[int] = RANKS) -> RetrievalResult:
    """Metrics of one direction from ``scores`` (Q, G; higher is better) and bool ``positives`` (Q, G).

    Raises ValueError on non-finite scores, shapes that differ, and queries without a positive.
    """
    scores, positives = np.asarray(scores), np.asarray(positives, dtype=bool)
    if scores.ndim != 2 or scores.shape != positives.shape or scores.size == 0:
        raise ValueError(
            f"scores {scores.shape} and positives {positives.shape} must be equal, non-empty (queries, gallery)"
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(scores))} of {scores.size} scores are not finite")
    if not positives.any(axis=1).all():
        raise ValueError(f"{np.count_nonzero(~positives.any(axis=1))} queries have no positive in the gallery")
    best = np.where(positives, scores, -np.inf).max(axis=1, keepdims=True)
    level = scores == best
    above = (scores > best).sum(axis=1)
    tied, tied_positives = level.sum(axis=1), (level & positives).sum(axis=1)
    hits = {k: _hit_probability(k - above, tied, tied_positives) for k in ks}
    # The first of p positives among n tied places lies at place (n + 1) / (p + 1) on average.
    return RetrievalResult(hits, above + (tied + 1) / (tied_positives + 1), scores.shape[1])


def chance_metrics(positives: np.ndarray, ks: Sequence[int] = RANKS) -> dict[str, float]:
    """What a constant embedding scores on bool ``positives`` (Q, G): more than 1 / G where queries have several."""
    queries, gallery = positives.shape
    tied, true = np.full(queries, gallery), positives.sum(axis=1)
    hits = {k: _hit_probability(np.full(queries, k), tied, true) for k in ks}
    return RetrievalResult(hits, (tied + 1) / (true + 1), gallery).metrics


def _hit_probability(places: np.ndarray, tied: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Probability that the first ``places`` of ``tied`` items in random order hold one of ``positives``; each (Q,).

    Hypergeometric: 1 - C(tied - positives, places) / C(tied, places), as a product, which is exact enough to give
    K / G for a constant embedding.
    """
    miss = np.ones(len(tied))
    for drawn in range(max(int(places.max()), 0)):
        negatives_left = np.maximum(tied - positives - drawn, 0)
        miss *= np.where(drawn < places, negatives_left / np.maximum(tied - drawn, 1), 1.0)
    return 1.0 - miss


def cosine_scores(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Cosine similarities (Q, G), float32, of embeddings (Q, D) and (G, D).

    Computed in float64 and rounded to float32: a matrix product may differ in its last digits between equal columns
    or chunks, which would break ties between equal embeddings in an arbitrary order.
    Raises ValueError on embeddings that are not finite or of zero length.
    """
    normalised = []
    for side in (queries, gallery):
        side = np.asarray(side, dtype=np.float64)
        length = np.linalg.norm(side, axis=1, keepdims=True)
        if not np.isfinite(length).all() or (length == 0).any():
            raise ValueError("embeddings must be finite and not zero")
        normalised.append(side / length)
    return (normalised[0] @ normalised[1].T).astype(np.float32)


def retrieve(
    queries: np.ndarray, gallery: np.ndarray, positives: np.ndarray, ks: Sequence[int] = RANKS, chunk: int = 2048
) -> RetrievalResult:
    """Metrics of one direction from embeddings (Q, D) and (G, D) by cosine, ``chunk`` queries at a time."""
    if len(queries) != len(positives):
        raise ValueError(f"{len(queries)} queries but positives for {len(positives)}")
    parts = [
        retrieval_metrics(cosine_scores(queries[start : start + chunk], gallery), positives[start : start + chunk], ks)
        for start in range(0, len(queries), chunk)
    ]
    hits = {k: np.concatenate([part.hits[k] for part in parts]) for k in ks}
    return RetrievalResult(hits, np.concatenate([part.rank for part in parts]), len(gallery))


def caption_positives(captions: Sequence[str], video_of_caption: Sequence[int], videos: int) -> np.ndarray:
    """Which videos each caption is true of: bool (captions, videos).

    A caption is true of its own video and of every video that has a caption of the same wording. Rows serve
    text-to-video; the transpose serves video-to-text, where the best of a video's captions counts.
    """
    if len(captions) != len(video_of_caption):
        raise ValueError(f"{len(captions)} captions but videos of {len(video_of_caption)}")
    _, wording = np.unique(np.asarray(captions), return_inverse=True)
    said_of = np.zeros((wording.max(initial=-1) + 1, videos), dtype=bool)
    said_of[wording, np.asarray(video_of_caption, dtype=int)] = True
    return said_of[wording]


def both_directions(
    texts: np.ndarray, videos: np.ndarray, positives: np.ndarray, ks: Sequence[int] = RANKS
) -> dict[str, RetrievalResult]:
    """Results of both directions from caption embeddings (C, D), video embeddings (V, D) and positives (C, V)."""
    return {
        "text_to_video": retrieve(texts, videos, positives, ks),
        "video_to_text": retrieve(videos, texts, np.asarray(positives).T, ks),
    }


def hard_negative_accuracy(sim_true: np.ndarray, sim_negative: np.ndarray) -> np.ndarray:
    """Per pair: 1 where the true caption scores above its hard negative, 0 below, 0.5 on a tie; shapes equal."""
    sim_true, sim_negative = np.asarray(sim_true), np.asarray(sim_negative)
    if sim_true.shape != sim_negative.shape:
        raise ValueError(f"similarities differ in shape: {sim_true.shape} and {sim_negative.shape}")
    if not (np.isfinite(sim_true).all() and np.isfinite(sim_negative).all()):
        raise ValueError("similarities are not finite")
    return (sim_true > sim_negative) + 0.5 * (sim_true == sim_negative)
