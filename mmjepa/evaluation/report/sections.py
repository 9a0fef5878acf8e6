"""Sections of the report: each turns rows into tables, charts and one or two sentences."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from mmjepa.evaluation.report.comparisons import Comparison
from mmjepa.evaluation.report.findings import chance
from mmjepa.evaluation.report.hits import AllHits
from mmjepa.evaluation.report.plots import Chart, Line, Palette, forest_chart, inline_svg, line_chart, shared_limits
from mmjepa.evaluation.report.probe_clips import Readings, read_probe
from mmjepa.evaluation.report.retention import (
    Curve,
    clean_estimate,
    lossy_conditions,
    retained,
    retention_curve,
    robustness,
    share_text,
)
from mmjepa.evaluation.report.rows import Estimate, Results, distinct, join_seeds, where
from mmjepa.evaluation.report.style import FILL_MEANINGS, LINE_STYLES, MANY_COLOUR, percent, plain, title_of
from mmjepa.evaluation.report.tables import Cell, Column, Table, encoder_table, to_html

DIRECTIONS = ("text_to_video", "video_to_text")
CLEAN_METRICS = ("R@1", "R@5", "R@10", "MedR", "MnR")
LOSS_LABEL = "frames lost (%)"
SCORES = ("absolute", "relative", "area")
"""Fields of RobustnessScores that may be averaged over conditions."""


@dataclass
class Section:
    """A part of the page. ``charts`` and ``tables`` are also written beside the page, as PNG and CSV.

    What makes a section returns None where the results hold nothing for it.
    """

    anchor: str
    title: str
    body: str
    tables: list[Table] = field(default_factory=list)
    charts: dict[str, list[Chart]] = field(default_factory=dict)


def retrieval_section(results: Results) -> Section | None:
    """Clean retrieval in both directions."""
    tables = [_clean_table(results, direction) for direction in DIRECTIONS]
    tables = [table for table in tables if table.rows]
    if not tables:
        return None
    notes = "R@K and intervals in percent. Bold: the interval lies apart from every other in its column."
    return Section(
        "retrieval",
        "Retrieval, every frame received",
        f'<p class="soft">{notes}</p>' + "".join(map(to_html, tables)),
        tables,
    )


def retention_section(results: Results, hits: AllHits, palette: Palette) -> Section | None:
    """R@1 over the dropout rate, absolute and relative to the clean value, one chart per pattern and fill."""
    title = "Retrieval as frames are lost"
    conditions = lossy_conditions(results)
    if not conditions:
        return None
    absolute: dict[tuple[str, str], list[Line]] = {}
    relative: dict[tuple[str, str], list[Line]] = {}
    for condition in conditions:
        curves = _curves(results, *condition)
        absolute[condition] = [_line(curve, curve.estimates) for curve in curves]
        shares = [(curve, retained(curve, hits.get(curve.encoder, {}))) for curve in curves]
        relative[condition] = [_line(curve, share) for curve, share in shares if share is not None]
    charts = {
        "retention": _retention_charts(absolute, "R@1 (%)", palette),
        "retention_relative": _retention_charts(relative, "R@1 / clean R@1 (%)", palette),
    }
    note = "Read together with the charts above: an encoder that never worked has nothing to lose."
    body = (
        chart_key(palette)
        + "<h3>Text-to-video R@1</h3>"
        + chart_grid(charts["retention"], palette)
        + f'<h3>Share of the clean R@1 that is kept</h3><p class="soft">{note}</p>'
        + chart_grid(charts["retention_relative"], palette)
    )
    return Section("retention", title, body, charts=charts)


def comparison_section(comparisons: Sequence[Comparison]) -> Section | None:
    """Paired differences in R@1 between encoders, on the same queries."""
    title = "Paired comparisons"
    if not comparisons:
        return None
    columns = [Column("clean or lossy"), Column("difference (points)", higher_is_better=None)]
    columns += [Column("p (Holm)"), Column("seeds")]
    caption = "Text-to-video R@1, first minus second; lossy: mean over all conditions with lost frames."
    table = Table("comparisons", caption, columns)
    for one in comparisons:
        difference = Estimate(one.difference.difference, one.difference.low, one.difference.high, one.seeds)
        label = f"{title_of(one.encoder)} − {title_of(one.other)}"
        table.add(label, ["lossy" if one.lossy else "clean", difference, f"{one.p_value:.3f}", str(one.seeds)])
    note = (
        "Both encoders see the same resampled videos. With one seed the bootstrap's interval; with several Student's "
        "t, the variance between seeds beside that of the videos."
    )
    return Section("comparisons", title, f'<p class="soft">{note}</p>{to_html(table)}', [table])


def hard_negative_section(results: Results) -> Section | None:
    """How often a clip is nearer to its caption than to one that is wrong in one thing; 50 % is chance."""
    title = "Wrong thing or wrong motion?"
    rows = [row for row in results.retrieval if row.metric not in CLEAN_METRICS]
    clean = [row for row in rows if row.rate == 0]
    if not clean:
        return None
    metrics = sorted(distinct(clean, "metric"))
    cells = {name: [join_seeds(where(clean, encoder=name, metric=m)) for m in metrics] for name in results.encoders()}
    columns = [Column(metric.replace("_", " ")) for metric in metrics]
    caption = "Percent of clips that are nearer to their caption than to its hard negative; chance is 50."
    table = encoder_table("hard_negatives", caption, columns, cells)
    return Section("negatives", title, to_html(table), [table])


def robustness_section(results: Results) -> Section | None:
    """Scores that sum up each curve: averaged over the conditions that every encoder met, and one by one."""
    title = "Robustness in numbers"
    by_condition = {condition: _curves(results, *condition) for condition in lossy_conditions(results)}
    if not by_condition:
        return None
    encoders = list(dict.fromkeys(curve.encoder for curves in by_condition.values() for curve in curves))
    shared = [curves for curves in by_condition.values() if {curve.encoder for curve in curves} == set(encoders)]
    columns = [Column("clean R@1"), *(Column(name) for name in SCORES)]
    tables = []
    if shared:
        caption = f"Text-to-video R@1, mean over the {len(shared)} conditions that every encoder met; no intervals."
        table = Table("robustness_mean", caption, columns)
        for encoder in encoders:
            curves = [curve for group in shared for curve in group if curve.encoder == encoder]
            scores = [robustness(curve) for curve in curves]
            means = [fmean(getattr(one, name) for one in scores) for name in SCORES]
            table.add(title_of(encoder), [curves[0].clean, *map(share_text, means)], encoder)
        tables.append(table)
    table = Table("robustness", "Every condition", [Column("pattern"), Column("fill"), *columns, Column("half rate")])
    for (pattern, fill), curves in by_condition.items():
        for curve in curves:
            one = robustness(curve)
            cells: list[Cell] = [share_text(getattr(one, name)) for name in SCORES]
            half = f"> {100 * curve.rates[-1]:.0f} %" if math.isnan(one.half_rate) else f"{100 * one.half_rate:.0f} %"
            table.add(title_of(curve.encoder), [pattern, fill, curve.clean, *cells, half], curve.encoder)
    details = f"<details><summary>Every condition ({len(table.rows)} rows)</summary>{to_html(table)}</details>"
    return Section("robustness", title, "".join(map(to_html, tables)) + details, [*tables, table])


def probe_section(results: Results, readings: Readings | None, palette: Palette) -> Section | None:
    """Frozen probes: a chart per task of the first probe, and a table per probe and task with the control rows."""
    if readings is None:
        return None
    drawn = (_probe_chart(results, readings, task, palette) for task in readings.tasks)
    charts = [chart for chart in drawn if chart is not None]
    tables = [_probe_table(results, probe) for probe in distinct(results.probes, "probe") if probe != "majority"]
    body = chart_grid(charts, palette) + f'<div class="tables">{"".join(map(to_html, tables))}</div>'
    return Section("probes", "Frozen probes", body, tables, {"probes": charts} if charts else {})


def at_a_glance(results: Results, readings: Readings | None) -> Table:
    """One row per encoder: clean R@1 both ways, R@1 at the middle rate of the first condition, and the probes."""
    directions = [name for name in DIRECTIONS if where(results.retrieval, direction=name, metric="R@1", rate=0.0)]
    columns = [Column(f"R@1 {title_of(name).replace(' to ', '→')}") for name in directions]
    conditions = lossy_conditions(results)
    rates = sorted({row.rate for row in results.retrieval if row.rate > 0})
    middle = min(rates, key=lambda rate: abs(rate - 0.5)) if rates else None
    if conditions and middle is not None:
        columns.append(Column(f"{100 * middle:.0f} % lost ({conditions[0][0]}, {conditions[0][1]})"))
    tasks = [] if readings is None else readings.tasks
    columns += [Column(f"{task} probe") for task in tasks]
    cells: dict[str, list[Cell]] = {}
    for encoder in results.encoders():
        row: list[Cell] = [clean_estimate(results, encoder, direction, "R@1") for direction in directions]
        if conditions and middle is not None:
            curve = retention_curve(results, encoder, *conditions[0])
            row.append(dict(zip(curve.rates, curve.estimates, strict=True)).get(middle) if curve else None)
        row += [] if readings is None else [readings.level(encoder, task) for task in tasks]
        cells[encoder] = row
    gallery = chance(results)
    notes = ["Percent with 95 % intervals", *([] if readings is None else [f"probes: {readings.probe}, top-1"])]
    caption = "; ".join(notes) + "." + (f" Chance R@1: {100 * gallery.value:.2g}." if gallery else "")
    return encoder_table("summary", caption, columns, cells)


def chart_grid(charts: Sequence[Chart], palette: Palette) -> str:
    """Charts side by side as far as the page is wide."""
    figures = [
        f"<figure><strong>{html.escape(chart.title)}</strong>{inline_svg(chart, palette)}"
        f"<figcaption>{html.escape(chart.caption)}</figcaption></figure>"
        for chart in charts
    ]
    return f'<div class="charts">{"".join(figures)}</div>'


def chart_key(palette: Palette) -> str:
    """Colours and line styles of the encoders, for charts of lines."""
    dashes = {"-": "", "--": ' stroke-dasharray="6 3"', ":": ' stroke-dasharray="2 3"'}
    items = []
    many = [name for name in palette if palette[name] == MANY_COLOUR]
    for name in (name for name in palette if name != "majority" and name not in many[1:]):
        stroke = f'stroke="var(--series-{name})" stroke-width="3"{dashes[LINE_STYLES.get(name, "-")]}'
        line = f'<svg viewBox="0 0 32 12"><line x1="0" y1="6" x2="32" y2="6" {stroke}/></svg>'
        label = title_of(name) if name not in many else f"{len(many)} variants"
        items.append(f"<li>{line}{html.escape(label)}</li>")
    return f'<ul class="key">{"".join(items)}</ul>'


def _clean_table(results: Results, direction: str) -> Table:
    columns = [
        Column(metric, percent if metric.startswith("R@") else plain, higher_is_better=metric.startswith("R@"))
        for metric in CLEAN_METRICS
    ]
    cells = {
        name: [clean_estimate(results, name, direction, metric) for metric in CLEAN_METRICS]
        for name in results.encoders()
    }
    rows = where(results.retrieval, direction=direction, metric="R@1", rate=0.0)
    size = f", {rows[0].queries} queries, {rows[0].gallery} candidates" if rows else ""
    return encoder_table(f"retrieval_{direction}", f"{title_of(direction)}{size}", columns, cells)


def _curves(results: Results, pattern: str, fill: str) -> list[Curve]:
    curves = (retention_curve(results, encoder, pattern, fill) for encoder in results.encoders())
    return [curve for curve in curves if curve is not None]


def _retention_charts(lines: Mapping[tuple[str, str], list[Line]], y_label: str, palette: Palette) -> list[Chart]:
    """One chart per (pattern, fill), all on one scale."""
    limits = shared_limits(lines.values())
    return [
        line_chart(f"{pattern} loss, {fill}", FILL_MEANINGS[fill], group, palette, LOSS_LABEL, y_label, limits)
        for (pattern, fill), group in lines.items()
    ]


def _line(curve: Curve, estimates: Sequence[Estimate]) -> Line:
    return Line(curve.encoder, [100 * rate for rate in curve.rates], [_in_percent(one) for one in estimates])


def _in_percent(one: Estimate) -> Estimate:
    return Estimate(100 * one.value, 100 * one.low, 100 * one.high, one.seeds)


def _probe_chart(results: Results, readings: Readings, task: str, palette: Palette) -> Chart | None:
    rows = [row for row in where(readings.rows, task=task) if row.probe != "majority"]
    encoders = [name for name in results.encoders() if name != "majority"]
    estimates = {name: readings.level(name, task) for name in encoders}
    present = {name: _in_percent(one) for name, one in estimates.items() if one is not None}
    if not present:
        return None
    majority = readings.level("majority", task)
    caption = f"{readings.probe} probe, {rows[0].classes} classes, {rows[0].test} test clips"
    return forest_chart(
        task, caption, present, palette, "top-1 accuracy (%)", None if majority is None else 100 * majority.value
    )


def _probe_table(results: Results, probe: str) -> Table:
    """Rows: encoders, then their controls (single frame, shuffled frames), then the majority class. Columns: tasks."""
    tasks = distinct(results.probes, "task")
    table = Table(f"probe_{probe}", f"{title_of(probe)} probe, top-1 in percent", [Column(task) for task in tasks])
    controls = distinct(where(results.probes, probe=probe), "control")
    for control in sorted(controls, key=lambda name: (name != "none", name)):
        readings = read_probe(results, probe, control)
        for encoder in (name for name in results.encoders() if name != "majority"):
            cells: list[Cell] = [readings.level(encoder, task) for task in tasks]
            if any(cell is not None for cell in cells):
                label = title_of(encoder) if control == "none" else f"{title_of(encoder)}, {title_of(control)}"
                table.add(label, cells, encoder if control == "none" else "random_init")
    majority: list[Cell] = [join_seeds(where(results.probes, probe="majority", task=task)) for task in tasks]
    if any(cell is not None for cell in majority):
        table.add(title_of("majority"), majority, "majority")
    return table
