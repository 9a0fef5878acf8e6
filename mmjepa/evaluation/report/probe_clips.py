"""Which test clips each probe classified correctly, and paired comparisons of encoders on the same clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmjepa.errors import UserError
from mmjepa.evaluation.report.rows import Estimate, ProbeRow, Results, distinct, join_seeds, where
from mmjepa.evaluation.statistics import (
    PairedDifference,
    hierarchical_bootstrap,
    holm_correction,
    paired_differences,
)


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
    def estimate(self) -> Estimate:
        """The difference as a number with its interval."""
        return Estimate(self.difference.difference, self.difference.low, self.difference.high, self.seeds)

    @property
    def significant(self) -> bool:
        """Whether noise in clips and seeds explains it badly, and more than one seed was trained."""
        return self.p_value < 0.05 and self.seeds > 1


@dataclass(frozen=True)
class Readings:
    """What one probe read under one control: rows, those of the majority class among them, and clips where kept."""

    probe: str
    rows: list[ProbeRow]
    clips: AllClips

    @property
    def tasks(self) -> list[str]:
        """All tasks, in the order of the rows."""
        return distinct(self.rows, "task")

    def seeds(self, encoder: str) -> int:
        """How many pretraining seeds of the encoder were probed."""
        return len(distinct(where(self.rows, encoder=encoder), "pretrain_seed"))

    def level(self, encoder: str, task: str) -> Estimate | None:
        """Top-1 of an encoder; the interval over several seeds resamples seeds and clips, where these were kept."""
        rows = where(self.rows, encoder=encoder, task=task)
        runs = list(_runs(self.clips, encoder, task).values())
        if len(runs) < 2 or len(runs) < len(rows):
            return join_seeds(rows)
        _require_equal_clips(runs, task)
        interval = hierarchical_bootstrap([one.correct[task] for one in runs])
        return Estimate(interval.estimate, interval.low, interval.high, len(runs))


def read_probe(results: Results, probe: str, control: str = "none") -> Readings:
    """The readings of ``probe`` under ``control``. Raises UserError on damaged files of clips."""
    found: dict[str, dict[int, ProbeClips]] = {}
    for (encoder, seed), paths in results.clips.items():
        parts = [_read(path, probe, control) for path in paths]
        merged = ProbeClips(
            {task: values for part in parts for task, values in part.correct.items()},
            {task: keys for part in parts for task, keys in part.keys.items()},
        )
        if merged.correct:
            found.setdefault(encoder, {})[seed or 0] = merged
    majority = where(results.probes, probe="majority") if control == "none" else []
    return Readings(probe, where(results.probes, probe=probe, control=control) + majority, found)


def tasks_of(clips: AllClips) -> list[str]:
    """All tasks that some encoder was probed on, in the order of the files."""
    return list(dict.fromkeys(task for by_seed in clips.values() for one in by_seed.values() for task in one.correct))


def compare_probes(encoders: Sequence[str], other: str, clips: AllClips) -> list[ProbeComparison]:
    """Every one of ``encoders`` against ``other`` on every task that both were probed on with a common seed.

    Raises UserError if two of them were probed on different clips.
    """
    family = [found for task in tasks_of(clips) for found in _on_task(encoders, other, task, clips)]
    corrected = holm_correction([difference.p_value for *_, difference in family])
    return [ProbeComparison(*one, p_value=p) for one, p in zip(family, corrected.tolist(), strict=True)]


def _on_task(
    encoders: Sequence[str], other: str, task: str, clips: AllClips
) -> list[tuple[str, str, str, int, PairedDifference]]:
    theirs = _runs(clips, other, task)
    shared = {name: sorted(_runs(clips, name, task).keys() & theirs.keys()) for name in encoders if name != other}
    shared = {name: seeds for name, seeds in shared.items() if seeds}
    _require_equal_clips([run for name in (*shared, other) for run in _runs(clips, name, task).values()], task)
    sides = [
        ([clips[name][seed].correct[task] for seed in seeds], [theirs[seed].correct[task] for seed in seeds])
        for name, seeds in shared.items()
    ]
    found = paired_differences(sides)
    return [(name, other, task, len(shared[name]), one) for name, one in zip(shared, found, strict=True)]


def _runs(clips: AllClips, encoder: str, task: str) -> dict[int, ProbeClips]:
    """Runs of an encoder that were probed on the task, by seed."""
    return {seed: one for seed, one in clips.get(encoder, {}).items() if task in one.correct}


def _require_equal_clips(runs: Sequence[ProbeClips], task: str) -> None:
    if any(one.keys[task] != runs[0].keys[task] for one in runs):
        raise UserError(f"probes of {task} that are to be compared were measured on different clips")


def _read(path: Path, probe: str, control: str) -> ProbeClips:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            tasks = [name.removesuffix("/keys") for name in arrays.files if name.endswith("/keys")]
            names = {task: f"{task}/{control}/{probe}" for task in tasks}
            return ProbeClips(
                {task: arrays[name].astype(float) for task, name in names.items() if name in arrays.files},
                {t: tuple(arrays[f"{t}/keys"].tolist()) for t in tasks},
            )
    except (ValueError, KeyError, OSError) as error:
        raise UserError(f"{path} does not hold the clips of a probe evaluation: {error}") from error
