"""Paired comparisons: two encoders on the same queries, from the rank of every query that retrieval keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmjepa.errors import UserError
from mmjepa.evaluation.report.rows import Results
from mmjepa.evaluation.statistics import PairedDifference, hierarchical_paired_difference, holm_correction

CLEAN = "clean"


@dataclass(frozen=True)
class Comparison:
    """Text-to-video R@1 of ``encoder`` minus that of ``other``; ``lossy``: mean over all conditions with lost frames.

    ``p_value`` is corrected by Holm's method over all comparisons of the same kind (clean or lossy).
    """

    encoder: str
    other: str
    lossy: bool
    seeds: int
    difference: PairedDifference
    p_value: float


@dataclass(frozen=True)
class Hits:
    """Per query (Q,): whether the first true clip came first, by condition; ``video`` (Q,) is each query's video."""

    by_condition: Mapping[str, np.ndarray]
    video: np.ndarray


def compare_encoders(results: Results) -> list[Comparison]:
    """Every trained encoder against random init, and every other one against the baseline; equal seeds are paired.

    Pairs without a common seed or condition are left out. Raises UserError if runs were measured on different queries.
    """
    trained = results.trained()
    pairs = [(name, "random_init") for name in trained]
    pairs += [(name, "baseline") for name in trained if name != "baseline"]
    loaded = {(name, seed): _hits(path) for (name, seed), path in results.ranks.items() if seed is not None}
    found = []
    for lossy in (False, True):
        family = []
        for encoder, other in pairs:
            seeds = sorted({s for name, s in loaded if name == encoder} & {s for name, s in loaded if name == other})
            a, b = ([loaded[name, seed] for seed in seeds] for name in (encoder, other))
            conditions = _shared_conditions([*a, *b], lossy)
            if conditions:
                family.append((encoder, other, lossy, len(seeds), _difference(a, b, conditions)))
        corrected = holm_correction([one[-1].p_value for one in family])
        found += [Comparison(*one, p_value=p) for one, p in zip(family, corrected.tolist(), strict=True)]
    return found


def _hits(path: Path) -> Hits:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            suffix = "/text_to_video"
            ranks = {name.removesuffix(suffix): arrays[name] for name in arrays.files if name.endswith(suffix)}
            return Hits({name: (rank <= 1).astype(float) for name, rank in ranks.items()}, arrays["caption_video"])
    except (ValueError, KeyError, OSError) as error:
        raise UserError(f"{path} does not hold the ranks of a retrieval evaluation: {error}") from error


def _shared_conditions(runs: Sequence[Hits], lossy: bool) -> list[str]:
    """Conditions that every run was measured under, with or without lost frames."""
    if not runs:
        return []
    shared = set.intersection(*(set(hits.by_condition) for hits in runs))
    return sorted(name for name in shared if (name != CLEAN) == lossy)


def _difference(a: Sequence[Hits], b: Sequence[Hits], conditions: Sequence[str]) -> PairedDifference:
    """Paired difference of the mean over ``conditions``, seeds matched."""
    videos = a[0].video
    if any(not np.array_equal(videos, hits.video) for hits in (*a, *b)):
        raise UserError("retrieval runs that are to be compared were measured on different queries")
    sides = [[np.mean([hits.by_condition[name] for name in conditions], axis=0) for hits in side] for side in (a, b)]
    return hierarchical_paired_difference(sides[0], sides[1], videos)
