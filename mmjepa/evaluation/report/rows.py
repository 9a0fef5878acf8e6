"""Rows of results: read the tidy JSON that the evaluations write, choose among them, and join seeds into estimates."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from scipy.stats import t as student_t

from mmjepa.errors import UserError

CONTROL_ENCODERS = ("random_init", "raw_patches", "majority")
"""Rows of every table that no training made: what a trained encoder has to beat."""

MEASURED = frozenset({"value", "low", "high", "chance", "gallery", "queries", "train", "test", "classes"})
"""Fields of a row that are not what it is about but what came out."""

RANK_METRICS = ("MedR", "MnR")
"""Ranks, from 1 on; every other metric is a share."""

NORMAL_95 = 1.959964
"""Half width of a 95 % interval in standard errors, for a normal distribution."""


@dataclass(frozen=True)
class RetrievalRow:
    """One retrieval metric of one encoder, pretraining seed and head under one dropout condition."""

    encoder: str
    pretrain_seed: int | None
    head_seed: int
    pattern: str
    fill: str
    rate: float
    drop_seed: int
    direction: str
    metric: str
    value: float
    low: float
    high: float
    chance: float
    gallery: int
    queries: int


@dataclass(frozen=True)
class ProbeRow:
    """One frozen probe of one encoder and pretraining seed on one task. ``control`` says what was done to the clips."""

    encoder: str
    pretrain_seed: int | None
    task: str
    probe: str
    control: str
    metric: str
    value: float
    low: float
    high: float
    train: int
    test: int
    classes: int


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, joined over ``seeds`` pretraining seeds."""

    value: float
    low: float
    high: float
    seeds: int

    def beats(self, other: Estimate) -> bool:
        """True only if the intervals are apart, this one above."""
        return self.low > other.high


@dataclass
class Results:
    """Everything the evaluations of one experiment left behind."""

    retrieval: list[RetrievalRow] = field(default_factory=list)
    probes: list[ProbeRow] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)
    metas: dict[str, dict[str, Any]] = field(default_factory=dict)
    queries: dict[tuple[str, int | None], list[Path]] = field(default_factory=dict)
    """Files with the values of every query, one per head, by (encoder, pretraining seed)."""
    clips: dict[tuple[str, int | None], list[Path]] = field(default_factory=dict)
    """Files with the test clips that probes classified correctly, by (encoder, pretraining seed)."""

    def encoders(self) -> list[str]:
        """Names in table order: baseline, other trained encoders by name, then the controls."""
        names = {row.encoder for row in self.retrieval} | {row.encoder for row in self.probes}
        return sorted(names, key=table_order)

    def trained(self) -> list[str]:
        """Encoders that some training made."""
        return [name for name in self.encoders() if name not in CONTROL_ENCODERS]


Row = TypeVar("Row", RetrievalRow, ProbeRow)


def table_order(encoder: str) -> tuple[int, str]:
    """Sort key: baseline first, controls last and in their fixed order."""
    if encoder in CONTROL_ENCODERS:
        return 2 + CONTROL_ENCODERS.index(encoder), encoder
    return (0 if encoder == "baseline" else 1), encoder


def load_results(folder: Path) -> Results:
    """Read every ``*.json`` below ``folder`` that has ``meta`` and ``rows``.

    Raises UserError when there is none, when two files give the same row, and when retrieval rows are of galleries of
    different sizes: averages and comparisons over them would mean nothing.
    """
    results = Results()
    for path in sorted(folder.rglob("*.json")):
        document = _read_json(path)
        if not (isinstance(document, dict) and {"meta", "rows"} <= document.keys()):
            continue
        results.metas[path.relative_to(folder).as_posix()] = document["meta"]
        results.examples += document.get("examples", [])
        for mapping in document["rows"]:
            if "probe" in mapping:
                probe = _parse(ProbeRow, mapping, path)
                # The majority class knows no encoder: every file of a data set gives the same row of it.
                if probe.probe != "majority" or probe not in results.probes:
                    results.probes.append(probe)
                if probe.probe != "majority":
                    _note(results.clips, probe, path)
            else:
                row = _parse(RetrievalRow, mapping, path)
                results.retrieval.append(row)
                _note(results.queries, row, path)
    if not results.metas:
        raise UserError(
            f"no result files (JSON with meta and rows) in {folder}; run eval/retrieval.py or eval/probe.py first"
        )
    _check_consistent(results, folder)
    return results


def _note(files: dict[tuple[str, int | None], list[Path]], row: RetrievalRow | ProbeRow, path: Path) -> None:
    """Remember the arrays that an evaluation kept beside its rows, if it did."""
    arrays = path.with_suffix(".npz")
    if arrays.is_file() and arrays not in (known := files.setdefault((row.encoder, row.pretrain_seed), [])):
        known.append(arrays)


def _check_consistent(results: Results, folder: Path) -> None:
    seen: set[tuple[Any, ...]] = set()
    rows: list[RetrievalRow | ProbeRow] = [*results.retrieval, *results.probes]
    for row in rows:
        identity = tuple(getattr(row, item.name) for item in fields(row) if item.name not in MEASURED)
        if identity in seen:
            raise UserError(f"{folder}: two files give the row {', '.join(map(str, identity))}; remove one of them")
        seen.add(identity)
    for task in distinct(results.probes, "task"):
        clips = {(row.train, row.test, row.classes) for row in results.probes if row.task == task}
        if len(clips) > 1:
            shown = ", ".join(f"{test} after {train} training clips" for train, test, _ in sorted(clips))
            raise UserError(f"{folder}: probes of {task} on other clips ({shown}) cannot stand in one report")
    galleries = {(row.direction, row.gallery) for row in results.retrieval if row.metric == "R@1"}
    if len(galleries) > len({direction for direction, _ in galleries}):
        sizes = ", ".join(str(size) for size in sorted({size for _, size in galleries}))
        raise UserError(f"{folder}: retrieval in galleries of different sizes ({sizes}) cannot stand in one report")


def where(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """The rows whose fields equal every wanted value."""
    return [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]


def distinct(rows: Iterable[Row], name: str) -> list[Any]:
    """The different values of one field, in order of first appearance."""
    return list(dict.fromkeys(getattr(row, name) for row in rows))


def join_seeds(rows: Sequence[RetrievalRow] | Sequence[ProbeRow]) -> Estimate | None:
    """One estimate from the rows of one encoder and condition, which may differ in their seeds; None without rows.

    Rows of one pretraining seed (several heads, several draws of lost frames) are averaged first, value and bounds
    alike: they look at the same videos. Several pretraining seeds are then joined with
    ``SE^2 = mean(SE_video^2) + var(seed means) / seeds``: the videos are shared by all seeds, so averaging over seeds
    does not shrink the first part. Few seeds say little about their spread, hence Student's t with
    Welch-Satterthwaite degrees of freedom; bounds stay where the metric can be.
    """
    by_seed: dict[int | None, list[RetrievalRow | ProbeRow]] = {}
    for row in rows:
        by_seed.setdefault(row.pretrain_seed, []).append(row)
    per_seed = [_average(group) for group in by_seed.values()]
    if len(per_seed) < 2:
        return per_seed[0] if per_seed else None
    value = statistics.fmean(one.value for one in per_seed)
    video = statistics.fmean(((one.high - one.low) / (2 * NORMAL_95)) ** 2 for one in per_seed)
    between = statistics.variance(one.value for one in per_seed) / len(per_seed)
    if between == 0.0:
        half = NORMAL_95 * math.sqrt(video)
    else:
        freedom = (video + between) ** 2 / between**2 * (len(per_seed) - 1)
        half = float(student_t.ppf(0.975, freedom)) * math.sqrt(video + between)
    lowest, highest = (1.0, math.inf) if rows[0].metric in RANK_METRICS else (0.0, 1.0)
    return Estimate(value, max(lowest, value - half), min(highest, value + half), len(per_seed))


def separated_best(estimates: Mapping[str, Estimate | None]) -> str | None:
    """The name whose interval lies above every other interval, or None: a best that noise could undo is not marked."""
    present = {name: estimate for name, estimate in estimates.items() if estimate is not None}
    for name, estimate in present.items():
        if len(present) > 1 and all(estimate.beats(other) for key, other in present.items() if key != name):
            return name
    return None


def _average(rows: Sequence[RetrievalRow | ProbeRow]) -> Estimate:
    return Estimate(
        statistics.fmean(row.value for row in rows),
        statistics.fmean(row.low for row in rows),
        statistics.fmean(row.high for row in rows),
        seeds=1,
    )


def _parse(kind: type[Row], mapping: Mapping[str, Any], path: Path) -> Row:
    names = [one.name for one in fields(kind)]
    missing = [name for name in names if name not in mapping]
    if missing:
        raise UserError(f"{path}: a {kind.__name__} lacks {', '.join(missing)}")
    return kind(**{name: mapping[name] for name in names})


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error})") from error
