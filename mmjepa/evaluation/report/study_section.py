"""Tables and charts of a study."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from mmjepa.evaluation.report.plots import Chart, Palette, difference_chart
from mmjepa.evaluation.report.published import PublishedFigures, counterpart, signed
from mmjepa.evaluation.report.rows import CONTROL_ENCODERS, table_order
from mmjepa.evaluation.report.runs import Run
from mmjepa.evaluation.report.sections import Section, chart_grid
from mmjepa.evaluation.report.study import FACTORS, REFERENCE, UNTRAINED, Study, factor_of, on_task
from mmjepa.evaluation.report.study_words import p_text
from mmjepa.evaluation.report.style import points, title_of
from mmjepa.evaluation.report.tables import Cell, Column, Table, to_html

RANK = "health/rankme"
NOTE = (
    "Held-out clips read by probes of frozen encoders. Differences are paired: the same seed, the same clips. Their "
    "intervals and tests are Student's t with the variance of clips and of seeds, the latter pooled over the variants "
    "of a task. Holm's correction runs over all variants and tasks with several seeds."
)
CHART_NOTE = (
    "Points of top-1 minus the seed-matched baseline, 95 % intervals; filled and starred: significant after Holm's "
    "correction. Dotted: random init."
)


def study_table(study: Study, runs: Sequence[Run], figures: PublishedFigures | None) -> Table:
    """One row per variant with several seeds, and the controls: level, difference to the baseline, published figure."""
    columns = [Column("seeds", higher_is_better=None)]
    for task in study.tasks:
        columns += [Column("top-1", higher_is_better=None, group=task), Column("− baseline", group=task)]
        if counterpart(task) and figures is not None:
            columns.append(Column(f"paper, {counterpart(task)}", group=task))
    columns += _run_columns(runs)
    caption = (
        "Top-1 in percent with 95 % intervals over resampled seeds and clips; − baseline: paired difference in points, "
        "* p < 0.05 after Holm's correction."
    )
    if runs:
        caption += (
            " Step time: median over the baseline's, as trained, beside whatever else the machine did: rough. RankMe: "
            "effective number of dimensions of the tokens at the end of training; near 1, all tokens are alike."
        )
    if figures is not None:
        caption += " Paper: published top-1 on the analogous benchmark (its difference to the published baseline)."
    table = Table("study", caption, columns)
    replicated = {REFERENCE, *study.variants(study.several)}
    encoders = sorted({row.encoder for row in study.readings.rows}, key=table_order)
    for name in encoders:
        if name not in replicated and name not in CONTROL_ENCODERS:
            continue
        seeds = "" if name == "majority" else str(study.readings.seeds(name))
        cells: list[Cell] = [seeds]
        for task in study.tasks:
            cells += [study.readings.level(name, task), _difference(study, name, task)]
            if counterpart(task) and figures is not None:
                cells.append(figures.beside(name, task))
        table.add(title_of(name), [*cells, *_run_cells(name, runs)], name)
    return table


def differences_section(study: Study, palette: Palette) -> Section | None:
    """Charts of the differences and their table; None if no variant has several seeds."""
    if not study.several:
        return None
    charts = [_chart(study, task) for task in study.tasks if on_task(study.several, task)]
    table = _differences(study)
    details = f"<details><summary>Every difference with its p-value</summary>{to_html(table)}</details>"
    body = f'<p class="soft">{CHART_NOTE}</p>{chart_grid(charts, palette)}<p class="soft">{NOTE}</p>{details}'
    return Section("differences", "Differences to the baseline", body, [table], {"study_differences": charts})


def single_section(study: Study, runs: Sequence[Run], figures: PublishedFigures | None) -> Section | None:
    """Variants with one seed, without a verdict; None if there is none."""
    names = study.variants(study.single)
    if not names:
        return None
    columns = []
    for task in study.tasks:
        columns.append(Column("top-1 (− baseline)", group=task))
        if counterpart(task) and figures is not None:
            columns.append(Column(f"paper, {counterpart(task)}", group=task))
    columns += _run_columns(runs)
    caption = "Top-1 in percent, and its difference to the baseline of the same seed."
    caption += " Step time, RankMe: as above." if runs else ""
    table = Table("study_single", caption, columns)
    for name in names:
        cells: list[Cell] = []
        for task in study.tasks:
            level, one = study.readings.level(name, task), study.single.get((name, task))
            if level is None or one is None:
                cells.append(None)
            else:
                cells.append(f"{100 * level.value:.1f} ({signed(100 * one.estimate.value, 1)})")
            if counterpart(task) and figures is not None:
                cells.append(figures.beside(name, task))
        table.add(title_of(name), [*cells, *_run_cells(name, runs)], name)
    note = f"One run each: what is the objective's and what the seed's cannot be told. {_spread(study)}"
    return Section("single", "Variants with one seed", f'<p class="soft">{note}</p>{to_html(table)}', [table])


def factors_section(study: Study) -> Section | None:
    """Encoders of which each factor was probed alone; None if there is none."""
    clips = study.readings.clips
    whole = {encoder for name in clips if (encoder := factor_of(name, clips)) is not None}
    if not whole:
        return None
    parts = {"all": "", **{factor: f"_{factor}" for factor in FACTORS}}
    table = Table(
        "study_factors",
        "Top-1 in percent of all channels, and of each factor's channels alone",
        [Column(part, group=task, higher_is_better=None) for task in study.tasks for part in parts],
    )
    for name in sorted(whole, key=table_order):
        cells: list[Cell] = [
            study.readings.level(f"{name}{suffix}", task) for task in study.tasks for suffix in parts.values()
        ]
        table.add(title_of(name), cells, name)
    note = "A factorised encoder should read appearance from one factor and motion from the other; others cannot."
    return Section("factors", "Each factor alone", f'<p class="soft">{note}</p>{to_html(table)}', [table])


def _spread(study: Study) -> str:
    """What the seeds alone do to the baseline."""
    runs = study.readings.clips[REFERENCE].values()
    ranges = []
    for task in study.tasks:
        levels = [100 * float(run.correct[task].mean()) for run in runs if task in run.correct]
        if len(levels) > 1:
            ranges.append(f"{min(levels):.1f} to {max(levels):.1f} % on {task}")
    return f"The baseline's own seeds reach from {', '.join(ranges)}." if ranges else ""


def _chart(study: Study, task: str) -> Chart:
    ranked = on_task(study.several, task)
    seeds = sorted({min(one.seeds for one in ranked), max(one.seeds for one in ranked)})
    untrained = study.untrained.get((UNTRAINED, task))
    learned = "" if study.learned(task) is not False else "not above random init beyond noise; "
    return difference_chart(
        task,
        f"{learned}{' to '.join(map(str, seeds))} seeds",
        {title_of(one.encoder): (one.estimate, one.significant) for one in ranked},
        None if untrained is None else untrained.difference.difference,
    )


def _differences(study: Study) -> Table:
    columns = [Column("difference (points)", points, higher_is_better=None), Column("p (Holm)"), Column("seeds")]
    table = Table("study_differences", "Minus the seed-matched baseline; * p < 0.05 with several seeds", columns)
    for task in study.tasks:
        for one in on_task(study.several, task):
            mark = f"{p_text(one)}{' *' if one.significant else ''}"
            table.add(f"{task}: {title_of(one.encoder)}", [one.estimate, mark, str(one.seeds)], one.encoder)
    return table


def _difference(study: Study, encoder: str, task: str) -> str | None:
    one = study.find(encoder, task)
    return None if one is None else points(one.estimate) + (" *" if one.significant else "")


def _run_columns(runs: Sequence[Run]) -> list[Column]:
    """What training itself says of a variant; nothing if there are no runs."""
    return [Column("step time"), Column("RankMe", higher_is_better=None)] if runs else []


def _run_cells(encoder: str, runs: Sequence[Run]) -> list[Cell]:
    """Cells of :func:`_run_columns`."""
    if not runs:
        return []
    ours, baseline = (_median_step(name, runs) for name in (encoder, REFERENCE))
    step = None if ours is None or baseline is None else f"{ours / baseline:.2f}"
    ranks = [rows[-1][RANK] for run in runs if run.encoder == encoder and (rows := [r for r in run.rows if RANK in r])]
    return [step, f"{statistics.median(ranks):.1f}" if ranks else None]


def _median_step(encoder: str, runs: Sequence[Run]) -> float | None:
    rows = [row["seconds_per_step"] for run in runs if run.encoder == encoder for row in run.rows]
    return statistics.median(rows) if rows else None
