"""The study of the objectives: per variant and task what the probes read, against the seed-matched baseline."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from mmjepa.evaluation.report.probe_clips import (
    AllClips,
    ProbeComparison,
    compare_probes,
    mean_over_seeds,
    tasks_of,
)
from mmjepa.evaluation.report.rows import CONTROL_ENCODERS, Estimate, table_order
from mmjepa.evaluation.report.runs import Run
from mmjepa.evaluation.report.sections import Section
from mmjepa.evaluation.report.style import title_of
from mmjepa.evaluation.report.tables import Cell, Column, Table, to_html

REFERENCE = "baseline"
NOTE = (
    "Attentive probes of frozen encoders on held-out clips. Intervals: hierarchical bootstrap over seeds and clips. "
    "Differences are paired: the same seed, the same clips. Holm's correction runs over all variants and tasks with "
    "several seeds. A variant with one seed can show nothing but itself: its differences hold for that one run."
)


def study_comparisons(clips: AllClips) -> list[ProbeComparison]:
    """Every trained variant against the baseline; those with several common seeds are corrected among themselves."""
    trained = sorted((name for name in clips if name not in CONTROL_ENCODERS), key=table_order)
    seeds = {name: len(clips[name].keys() & clips.get(REFERENCE, {}).keys()) for name in trained}
    several = compare_probes([name for name in trained if seeds[name] > 1], REFERENCE, clips)
    return several + compare_probes([name for name in trained if seeds[name] == 1], REFERENCE, clips)


def study_section(clips: AllClips, comparisons: Sequence[ProbeComparison], runs: Sequence[Run]) -> Section | None:
    """Tables of the study; None unless a variant was probed beside the baseline."""
    if not comparisons:
        return None
    tables = [_levels(clips, runs), _differences(comparisons)]
    body = f'<p class="soft">{NOTE}</p><div class="tables">{"".join(map(to_html, tables))}</div>'
    return Section("study", "Study of the objectives", body, tables)


def _levels(clips: AllClips, runs: Sequence[Run]) -> Table:
    tasks = tasks_of(clips)
    columns = [Column("seeds"), *(Column(task) for task in tasks), Column("step")]
    table = Table(
        "study",
        "Top-1 in percent; step: median seconds per step over those of the baseline's runs, as trained",
        columns,
    )
    for name in sorted(clips, key=table_order):
        levels = [mean_over_seeds(clips, name, task) for task in tasks]
        cells: list[Cell] = [
            None if one is None else Estimate(one.estimate, one.low, one.high, len(clips[name])) for one in levels
        ]
        table.add(title_of(name), [str(len(clips[name])), *cells, _step_ratio(name, runs)], name)
    return table


def _differences(comparisons: Sequence[ProbeComparison]) -> Table:
    columns = [Column("difference (points)", higher_is_better=None), Column("p (Holm)"), Column("seeds")]
    table = Table("study_differences", "Minus the seed-matched baseline; * p < 0.05 with several seeds", columns)
    for one in sorted(comparisons, key=lambda one: (one.task, -one.difference.difference)):
        difference = Estimate(one.difference.difference, one.difference.low, one.difference.high, one.seeds)
        p_value = f"{one.p_value:.3f}{' *' if one.significant else ''}" if one.seeds > 1 else "one seed"
        table.add(f"{one.task}: {title_of(one.encoder)}", [difference, p_value, str(one.seeds)], one.encoder)
    return table


def _step_ratio(encoder: str, runs: Sequence[Run]) -> str | None:
    ours, baseline = (_median_step(name, runs) for name in (encoder, REFERENCE))
    return None if ours is None or baseline is None else f"{ours / baseline:.2f}"


def _median_step(encoder: str, runs: Sequence[Run]) -> float | None:
    rows = [row["seconds_per_step"] for run in runs if run.encoder == encoder for row in run.rows]
    return statistics.median(rows) if rows else None
