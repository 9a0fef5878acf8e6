"""Per-query hits, from the rank of every query that the retrieval evaluation keeps beside its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmjepa.errors import UserError
from mmjepa.evaluation.report.rows import Results

CLEAN = "clean"
_DIRECTION = "/text_to_video"


@dataclass(frozen=True)
class Hits:
    """Of one encoder and seed, text to video: per query (Q,), whether its first true clip came first.

    ``by_condition`` is keyed by the retrieval evaluation's condition names; ``video`` (Q,) is each query's video.
    """

    by_condition: Mapping[str, np.ndarray]
    video: np.ndarray

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
    """The hits of every retrieval evaluation that kept its ranks. Raises UserError on damaged files."""
    found: dict[str, dict[int, Hits]] = {}
    for (encoder, seed), path in results.ranks.items():
        found.setdefault(encoder, {})[seed or 0] = _read(path)
    return found


def _read(path: Path) -> Hits:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = [name for name in arrays.files if name.endswith(_DIRECTION)]
            hits = {name.removesuffix(_DIRECTION): (arrays[name] <= 1).astype(float) for name in names}
            return Hits(hits, arrays["caption_video"])
    except (ValueError, KeyError, OSError) as error:
        raise UserError(f"{path} does not hold the ranks of a retrieval evaluation: {error}") from error
