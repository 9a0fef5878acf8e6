"""Per-query hits, which the retrieval evaluation keeps beside its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmjepa.errors import UserError
from mmjepa.evaluation.report.rows import Results

CLEAN = "clean"
_METRIC = "/text_to_video/R@1"


@dataclass(frozen=True)
class Hits:
    """Of one encoder and seed, text to video: per query (Q,), its share of R@1 (ties count by their expectation).

    ``by_condition`` is keyed by the retrieval evaluation's condition names; ``video`` (Q,) is each query's video, an
    index into ``keys``, the videos' names.
    """

    by_condition: Mapping[str, np.ndarray]
    video: np.ndarray
    keys: tuple[str, ...]

    def same_queries(self, other: Hits) -> bool:
        """Whether both were measured on the same queries of the same videos."""
        return self.keys == other.keys and np.array_equal(self.video, other.video)

    def mean_over(self, pattern: str, fill: str, rate: float) -> np.ndarray | None:
        """Hits (Q,) under a condition, averaged over the draws of lost frames; None if it was not measured."""
        if rate == 0:
            return self.by_condition.get(CLEAN)
        prefix = f"{pattern}-{fill}-{rate:g}-"
        draws = [hits for name, hits in self.by_condition.items() if name.startswith(prefix)]
        return np.mean(draws, axis=0) if draws else None


AllHits = Mapping[str, Mapping[int, Hits]]
"""Hits by encoder and pretraining seed; an encoder without seeds (raw patches) has the one key 0."""


def load_hits(results: Results) -> AllHits:
    """The hits of every retrieval evaluation that kept them, averaged over the heads of one encoder and seed.

    Raises UserError on damaged files, and if heads of one encoder were measured on different queries.
    """
    found: dict[str, dict[int, Hits]] = {}
    for (encoder, seed), paths in results.queries.items():
        found.setdefault(encoder, {})[seed or 0] = _mean_over_heads([_read(path) for path in paths], paths)
    return found


def _mean_over_heads(heads: Sequence[Hits], paths: Sequence[Path]) -> Hits:
    first = heads[0]
    for hits, path in zip(heads, paths, strict=True):
        if not hits.same_queries(first):
            raise UserError(f"{path} and {paths[0]} are of one encoder but were measured on different queries")
    shared = set.intersection(*(set(hits.by_condition) for hits in heads))
    means = {name: np.mean([hits.by_condition[name] for hits in heads], axis=0) for name in sorted(shared)}
    return Hits(means, first.video, first.keys)


def _read(path: Path) -> Hits:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = [name for name in arrays.files if name.endswith(_METRIC)]
            hits = {name.removesuffix(_METRIC): arrays[name].astype(float) for name in names}
            return Hits(hits, arrays["caption_video"], tuple(arrays["keys"].tolist()))
    except (ValueError, KeyError, OSError) as error:
        raise UserError(f"{path} does not hold the queries of a retrieval evaluation: {error}") from error
