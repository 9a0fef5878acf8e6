"""Text-video retrieval with a fitted head, as frames are lost: one decode per video, all conditions from its pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mmjepa.alignment.features import condition_name, encode_under
from mmjepa.alignment.heads import AlignmentHead
from mmjepa.data.evaluation_set import EvaluationSet
from mmjepa.evaluation.dropout import DropoutCondition
from mmjepa.evaluation.retrieval import (
    both_directions,
    caption_positives,
    chance_metrics,
    cosine_scores,
    hard_negative_accuracy,
)
from mmjepa.evaluation.statistics import bootstrap_interval, weighted_mean, weighted_median
from mmjepa.frozen import FrozenEncoder
from mmjepa.text import TextTower


@dataclass(frozen=True)
class VideoEmbeddings:
    """Embeddings of the test videos: by condition name (V, E) float32; with the videos' keys and metas."""

    by_condition: dict[str, np.ndarray]
    keys: list[str]
    metas: list[dict[str, Any]]


@torch.no_grad()
def embed_videos(
    encoder: FrozenEncoder, head: AlignmentHead, clips: EvaluationSet, conditions: Sequence[DropoutCondition]
) -> VideoEmbeddings:
    """Embed every video under every condition; equal conditions (all that lose nothing) are computed once."""
    distinct = {condition_name(condition): condition for condition in conditions}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in distinct}
    keys: list[str] = []
    metas: list[dict[str, Any]] = []
    for batch in clips:
        keys += batch.keys
        metas += batch.metas
        for name, condition in distinct.items():
            embedded = head.embed_video(encode_under(encoder, batch, condition))
            parts[name].append(embedded.float().cpu().numpy())
    return VideoEmbeddings({name: np.concatenate(chunks) for name, chunks in parts.items()}, keys, metas)


class Queries:
    """Captions of the test videos and their hard negatives, embedded: what the videos are compared with.

    ``texts`` (C, E), ``video`` (C,) the video of each caption, ``positives`` (C, V). Every video needs a caption.
    """

    def __init__(
        self, keys: Sequence[str], metas: Sequence[dict[str, Any]], tower: TextTower, head: AlignmentHead
    ) -> None:
        self._tower, self._head = tower, head
        pairs = [(text, video) for video, meta in enumerate(metas) for text in meta["captions"]]
        self.captions = [text for text, _ in pairs]
        self.video = np.array([video for _, video in pairs])
        self.texts = self._embed(self.captions)
        self.positives = caption_positives(self.captions, self.video.tolist(), len(keys))
        self.chance = {
            "text_to_video": chance_metrics(self.positives),
            "video_to_text": chance_metrics(self.positives.T),
        }
        self.negatives = dict(self._hard_negatives(metas))

    @torch.no_grad()
    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        device = next(self._head.parameters()).device
        return self._head.embed_text(self._tower.encode(texts).to(device)).float().cpu().numpy()

    def _hard_negatives(self, metas: Sequence[dict[str, Any]]) -> Iterator[tuple[str, tuple[np.ndarray, ...]]]:
        """By name: videos (P,) that have one, embeddings (P, E) of their first caption and of the hard negative."""
        names = sorted({name for meta in metas for name in meta.get("hard_negatives", {})})
        for name in names:
            videos = [video for video, meta in enumerate(metas) if name in meta.get("hard_negatives", {})]
            true = self._embed([metas[video]["captions"][0] for video in videos])
            false = self._embed([metas[video]["hard_negatives"][name] for video in videos])
            yield name, (np.array(videos), true, false)


@dataclass(frozen=True)
class Measured:
    """Values per query of one metric under one condition, their names, and what a constant embedding scores."""

    direction: str
    metric: str
    values: np.ndarray
    clusters: np.ndarray
    gallery: int
    chance: float

    def row(self, resamples: int) -> dict[str, Any]:
        """The value and its bootstrap interval over videos, as a part of a result row."""
        statistic = weighted_median if self.metric == "MedR" else weighted_mean
        interval = bootstrap_interval(self.values, self.clusters, resamples=resamples, statistic=statistic)
        return {
            "direction": self.direction,
            "metric": self.metric,
            "value": interval.estimate,
            "low": interval.low,
            "high": interval.high,
            "chance": self.chance,
            "gallery": self.gallery,
            "queries": len(self.values),
        }


def measure(videos: np.ndarray, queries: Queries) -> Iterator[Measured]:
    """All metrics of video embeddings (V, E): ranks in both directions, and accuracy against hard negatives."""
    results = both_directions(queries.texts, videos, queries.positives)
    for direction, result in results.items():
        clusters = queries.video if direction == "text_to_video" else np.arange(len(videos))
        for metric, values in result.per_query.items():
            yield Measured(direction, metric, values, clusters, result.gallery, queries.chance[direction][metric])
    for name, (having, true, false) in queries.negatives.items():
        chosen = videos[having].astype(np.float64)
        scores = [np.einsum("pe,pe->p", chosen, text).astype(np.float32) for text in (true, false)]
        yield Measured("video_to_text", name, hard_negative_accuracy(*scores), having, 2, 0.5)


def per_query(measured: Iterable[Measured]) -> dict[str, np.ndarray]:
    """``<direction>/<metric>`` for R@1 and ranks (MnR), float32: what paired tests between encoders are made from.

    R@1 of a query is kept beside its rank because it cannot be told from it when scores tie.
    """
    kept = [one for one in measured if one.metric in ("R@1", "MnR")]
    return {f"{one.direction}/{one.metric}": one.values.astype(np.float32) for one in kept}


def example_retrievals(
    name: str, videos: np.ndarray, keys: Sequence[str], queries: Queries, count: int, top: int
) -> list[dict[str, Any]]:
    """``count`` queries and the keys of the ``top`` videos that are found for each, best first.

    Queries are chosen by a hash of the video's key, so that every encoder shows the same ones.
    """
    by_hash = sorted(range(len(keys)), key=lambda video: hashlib.blake2b(keys[video].encode()).digest())
    first = np.array([int(np.flatnonzero(queries.video == video)[0]) for video in by_hash[:count]], dtype=int)
    order = np.argsort(-cosine_scores(queries.texts[first], videos), axis=1, kind="stable")[:, :top]
    return [
        {
            "encoder": name,
            "query": queries.captions[caption],
            "truth": _true_keys(keys, queries, int(caption)),
            "retrieved": [keys[video] for video in found],
        }
        for caption, found in zip(first, order, strict=True)
    ]


def _true_keys(keys: Sequence[str], queries: Queries, caption: int) -> list[str]:
    """Keys of the videos that a caption is true of, its own first."""
    own = int(queries.video[caption])
    others = [int(video) for video in np.flatnonzero(queries.positives[caption]) if video != own]
    return [keys[video] for video in (own, *others)]
