"""Which test clips each probe classified correctly, and paired comparisons of encoders on the same clips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmjepa.errors import UserError
from mmjepa.evaluation.report.rows import Results
from mmjepa.evaluation.statistics import (
    Interval,
    PairedDifference,
    hierarchical_bootstrap,
    hierarchical_paired_difference,
    holm_correction,
)

RESAMPLES = 10_000
"""Many, so that a p-value can stay small after Holm's correction over dozens of comparisons."""


@dataclass(frozen=True)
class ProbeClips:
    """Of one encoder and seed, by task: 1.0 or 0.0 per test clip (N,), and the clips' names."""

    correct: Mapping[str, np.ndarray]
    keys: Mapping[str, tuple[str, ...]]


AllClips = Mapping[str, Mapping[int, ProbeClips]]
"""By encoder and pretraining seed."""


@dataclass(frozen=True)
class ProbeComparison:
    """Top-1 of ``encoder`` minus that of ``other`` on one task, seeds matched.

    ``p_value`` is corrected by Holm's method over all encoders and tasks that are compared with the same other one.
    """

    encoder: str
    other: str
    task: str
    seeds: int
    difference: PairedDifference
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether noise in clips and seeds explains it badly, and more than one seed was trained."""
        return self.p_value < 0.05 and self.seeds > 1


def load_clips(results: Results, probe: str) -> AllClips:
    """What the probe evaluations kept of ``probe`` on whole clips. Raises UserError on damaged files."""
    found: dict[str, dict[int, ProbeClips]] = {}
    for (encoder, seed), paths in results.clips.items():
        parts = [_read(path, probe) for path in paths]
        merged = ProbeClips(
            {task: values for part in parts for task, values in part.correct.items()},
            {task: keys for part in parts for task, keys in part.keys.items()},
        )
        if merged.correct:
            found.setdefault(encoder, {})[seed or 0] = merged
    return found


def tasks_of(clips: AllClips) -> list[str]:
    """All tasks that some encoder was probed on, in the order of the files."""
    return list(dict.fromkeys(task for by_seed in clips.values() for one in by_seed.values() for task in one.correct))


def mean_over_seeds(clips: AllClips, encoder: str, task: str) -> Interval | None:
    """Top-1 of an encoder with its interval over seeds and clips; None if it was not probed on the task."""
    runs = [one for one in clips.get(encoder, {}).values() if task in one.correct]
    if not runs:
        return None
    _require_equal_clips(runs, task)
    return hierarchical_bootstrap([one.correct[task] for one in runs])


def compare_probes(encoders: Sequence[str], other: str, clips: AllClips) -> list[ProbeComparison]:
    """Every one of ``encoders`` against ``other`` on every task that both were probed on with a common seed.

    Raises UserError if two of them were probed on different clips.
    """
    family = [found for encoder in encoders if encoder != other for found in _pairs(encoder, other, clips)]
    corrected = holm_correction([difference.p_value for *_, difference in family])
    return [ProbeComparison(*one, p_value=p) for one, p in zip(family, corrected.tolist(), strict=True)]


def _pairs(encoder: str, other: str, clips: AllClips) -> Iterator[tuple[str, str, str, int, PairedDifference]]:
    ours, theirs = clips.get(encoder, {}), clips.get(other, {})
    for task in tasks_of(clips):
        seeds = [
            s for s in sorted(ours.keys() & theirs.keys()) if task in ours[s].correct and task in theirs[s].correct
        ]
        if not seeds:
            continue
        _require_equal_clips([side[seed] for seed in seeds for side in (ours, theirs)], task)
        a, b = ([side[seed].correct[task] for seed in seeds] for side in (ours, theirs))
        yield encoder, other, task, len(seeds), hierarchical_paired_difference(a, b, resamples=RESAMPLES)


def _require_equal_clips(runs: Sequence[ProbeClips], task: str) -> None:
    if any(one.keys[task] != runs[0].keys[task] for one in runs):
        raise UserError(f"probes of {task} that are to be compared were measured on different clips")


def _read(path: Path, probe: str) -> ProbeClips:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            tasks = [name.removesuffix("/keys") for name in arrays.files if name.endswith("/keys")]
            return ProbeClips(
                {t: arrays[f"{t}/none/{probe}"].astype(float) for t in tasks if f"{t}/none/{probe}" in arrays.files},
                {t: tuple(arrays[f"{t}/keys"].tolist()) for t in tasks},
            )
    except (ValueError, KeyError, OSError) as error:
        raise UserError(f"{path} does not hold the clips of a probe evaluation: {error}") from error
