"""Paired comparisons: two encoders on the same queries, seeds matched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmjepa.errors import UserError
from mmjepa.evaluation.report.hits import CLEAN, AllHits, Hits
from mmjepa.evaluation.statistics import PairedDifference, hierarchical_paired_difference, holm_correction


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


def compare_encoders(trained: Sequence[str], hits: AllHits) -> list[Comparison]:
    """Every trained encoder against random init, and every other one against the baseline; equal seeds are paired.

    Pairs without a common seed or condition are left out. Raises UserError if runs were measured on different queries.
    """
    pairs = [(name, "random_init") for name in trained]
    pairs += [(name, "baseline") for name in trained if name != "baseline"]
    found = []
    for lossy in (False, True):
        family = []
        for encoder, other in pairs:
            seeds = sorted(hits.get(encoder, {}).keys() & hits.get(other, {}).keys())
            a, b = ([hits[name][seed] for seed in seeds] for name in (encoder, other))
            conditions = _shared_conditions([*a, *b], lossy)
            if conditions:
                family.append((encoder, other, lossy, len(seeds), _difference(a, b, conditions)))
        corrected = holm_correction([one[-1].p_value for one in family])
        found += [Comparison(*one, p_value=p) for one, p in zip(family, corrected.tolist(), strict=True)]
    return found


def _shared_conditions(runs: Sequence[Hits], lossy: bool) -> list[str]:
    """Conditions that every run was measured under, with or without lost frames."""
    if not runs:
        return []
    shared = set.intersection(*(set(hits.by_condition) for hits in runs))
    return sorted(name for name in shared if (name != CLEAN) == lossy)


def _difference(a: Sequence[Hits], b: Sequence[Hits], conditions: Sequence[str]) -> PairedDifference:
    """Paired difference of the mean over ``conditions``."""
    if not all(hits.same_queries(a[0]) for hits in (*a, *b)):
        raise UserError("retrieval runs that are to be compared were measured on different queries")
    sides = [[np.mean([hits.by_condition[name] for name in conditions], axis=0) for hits in side] for side in (a, b)]
    return hierarchical_paired_difference(sides[0], sides[1], a[0].video)
