"""Build the report: read the rows, write the page with CSV, JSON and PNG beside it."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from mmjepa.errors import UserError
from mmjepa.evaluation.report.claims import claims_section
from mmjepa.evaluation.report.comparisons import compare_encoders
from mmjepa.evaluation.report.findings import Finding, headline, headline_readings
from mmjepa.evaluation.report.hits import load_hits
from mmjepa.evaluation.report.page import glossary_section, page, reproducibility_section
from mmjepa.evaluation.report.plots import Palette, save_png
from mmjepa.evaluation.report.published import read_published
from mmjepa.evaluation.report.rows import ProbeRow, Results, RetrievalRow, load_results, table_order
from mmjepa.evaluation.report.runs import Run, load_runs, training_charts
from mmjepa.evaluation.report.sections import (
    Section,
    at_a_glance,
    chart_grid,
    chart_key,
    comparison_section,
    hard_negative_section,
    probe_section,
    retention_section,
    retrieval_section,
    robustness_section,
)
from mmjepa.evaluation.report.strips import ClipPictures, parse_examples, query_html
from mmjepa.evaluation.report.study import factor_of, make_study
from mmjepa.evaluation.report.study_section import (
    differences_section,
    factors_section,
    single_section,
    study_table,
)
from mmjepa.evaluation.report.study_words import study_findings
from mmjepa.evaluation.report.style import colours, title_of
from mmjepa.evaluation.report.tables import Table, to_csv, to_markdown, to_text

PAGE = "report.html"
OPEN_QUERIES = 3
"""Example queries that are shown at once; the others unfold."""
OPEN_CHARTS = 12
"""Training charts that are shown at once."""


@dataclass
class ReportConfig:
    """What the report is made from.

    results: folder of result files (searched below); runs: folder of training runs (null: no training curves);
    splits: folders of the clips that were searched (empty: no pictures); commands: text file with the commands that
    made the results (null: none); published: table of published figures to set beside a study (null: none); out:
    folder to write into.
    """

    results: str = MISSING
    out: str = MISSING
    runs: str | None = None
    splits: list[str] = field(default_factory=list)
    commands: str | None = None
    published: str | None = None
    title: str = MISSING


@dataclass(frozen=True)
class Report:
    """What was written, and what a program prints of it."""

    page: Path
    findings: list[Finding]
    summary: Table

    def text(self) -> str:
        """The headline and the table at a glance."""
        return "\n".join([to_text(self.summary), "", *(one.text() for one in self.findings)])


def build_report(config: ReportConfig) -> Report:
    """Write ``report.html`` and its companions into ``config.out``. Raises UserError on missing or damaged input."""
    if Path(config.out).exists() and not Path(config.out).is_dir():
        raise UserError(f"out={config.out}: is a file, not a folder")
    results = load_results(_folder(config.results, "results"))
    runs = [] if config.runs is None else load_runs(_folder(config.runs, "runs"))
    palette = colours(sorted({*results.encoders(), *(run.encoder for run in runs)}, key=table_order))
    contents = _study_page(results, runs, config, palette) or _retrieval_page(results, runs, config, palette)
    sections = [section for section in contents.sections.values() if section is not None]
    missing = [what for what, section in contents.sections.items() if section is None]
    sections += [reproducibility_section(runs, results.metas, _lines(config.commands)), glossary_section()]
    out = Path(config.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={out}: cannot make the folder ({error.strerror})") from error
    findings, summary = contents.findings, contents.summary
    text = page(config.title, _subtitle(results, runs), findings, summary, sections, missing, palette)
    (out / PAGE).write_text(text)
    sentences = "".join(f"* {one.text()}\n" for one in findings)
    (out / "summary.md").write_text(f"{to_markdown(summary)}\n\n{summary.caption}\n\n{sentences}")
    _write_companions(out, results, findings, [summary, *(table for section in sections for table in section.tables)])
    for section in sections:
        for name, charts in section.charts.items():
            save_png(charts, out / f"{name}.png")
    return Report(out / PAGE, findings, summary)


@dataclass(frozen=True)
class _Contents:
    """What a page says. ``sections`` by what they are about, in order; None: nothing was measured."""

    findings: list[Finding]
    summary: Table
    sections: Mapping[str, Section | None]


def _retrieval_page(results: Results, runs: Sequence[Run], config: ReportConfig, palette: Palette) -> _Contents:
    """Led by retrieval and what lost frames do to it, as far as they were measured."""
    hits = load_hits(results)
    readings = headline_readings(results)
    comparisons = compare_encoders(results.trained(), hits)
    sections = {
        "retrieval as frames are lost": retention_section(results, hits, palette),
        "retrieval": retrieval_section(results),
        "paired comparisons of retrieval": comparison_section(comparisons),
        "robustness": robustness_section(results),
        "hard negatives": hard_negative_section(results),
        "probes": probe_section(results, readings, palette),
        "example retrievals": _examples_section(results, config.splits),
        "training": _training_section(runs, palette),
    }
    if config.published is not None:
        study = make_study(readings)
        sections |= {"the paper's claims": claims_section(read_published(Path(config.published)), study)}
    return _Contents(headline(results, comparisons, readings), at_a_glance(results, readings), sections)


def _study_page(results: Results, runs: Sequence[Run], config: ReportConfig, palette: Palette) -> _Contents | None:
    """Led by the objectives compared with the baseline; None if probes do not do that, or are not all there is."""
    readings = headline_readings(results)
    study = None if results.retrieval else make_study(readings)
    if study is None:
        return None
    figures = None if config.published is None else read_published(Path(config.published))
    sections = {
        "differences": differences_section(study, palette),
        "single": single_section(study, runs, figures),
        "factors": factors_section(study),
    }
    if figures is not None:
        sections["the paper's claims"] = claims_section(figures, study)
    if len({(row.probe, row.control) for row in results.probes if row.probe != "majority"}) > 1:
        sections["probes"] = probe_section(results, readings, palette)
    if runs:
        sections["training"] = _training_section(runs, palette)
    shown = {what: section for what, section in sections.items() if section is not None}
    return _Contents(study_findings(study), study_table(study, runs, figures), shown)


def _write_companions(out: Path, results: Results, findings: Sequence[Finding], tables: Sequence[Table]) -> None:
    for name, kind, rows in (
        ("retrieval_rows", RetrievalRow, results.retrieval),
        ("probe_rows", ProbeRow, results.probes),
    ):
        with (out / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(one.name for one in dataclasses.fields(kind))
            writer.writerows(dataclasses.astuple(row) for row in rows)
    for table in tables:
        to_csv(table, out / f"{table.name}.csv")
    document = {"meta": results.metas, "findings": [dataclasses.asdict(one) for one in findings]}
    (out / "summary.json").write_text(json.dumps(document, indent=1) + "\n")


def _examples_section(results: Results, splits: Sequence[str]) -> Section | None:
    title = "Example retrievals"
    if not results.examples:
        return None
    pictures = ClipPictures([Path(split) for split in splits])
    queries = parse_examples(results.examples)
    words = "Query, its true clip, and the first clips each encoder retrieved; time runs from left to right."
    groups = [query_html(query, group, pictures) for query, group in queries.items()]
    more = f"<details><summary>More queries</summary>{''.join(groups[OPEN_QUERIES:])}</details>"
    body = f'<p class="soft">{words}</p>' + "".join(groups[:OPEN_QUERIES])
    return Section("examples", title, body + (more if len(groups) > OPEN_QUERIES else ""))


def _training_section(runs: Sequence[Run], palette: Palette) -> Section | None:
    charts = training_charts(runs, palette)
    if not charts:
        return None
    body = chart_key(palette) + chart_grid(charts[:OPEN_CHARTS], palette)
    if charts[OPEN_CHARTS:]:
        summary = f"<summary>{len(charts) - OPEN_CHARTS} more quantities</summary>"
        body += f"<details>{summary}{chart_grid(charts[OPEN_CHARTS:], palette)}</details>"
    return Section("training", "Training", body, charts={"training": charts})


def _subtitle(results: Results, runs: Sequence[Run]) -> str:
    """Which encoders, with how many pretraining seeds, from which code."""
    seeds: dict[str, set[int | None]] = {name: set() for name in results.encoders() if name != "majority"}
    measured = [(row.encoder, row.pretrain_seed) for row in results.retrieval]
    for encoder, seed in [*measured, *((row.encoder, row.pretrain_seed) for row in results.probes)]:
        if encoder in seeds:
            seeds[encoder].add(seed)
    groups: dict[int, list[str]] = {}
    whole = {name: found for name, found in seeds.items() if factor_of(name, seeds) is None}
    for name, found in whole.items():
        groups.setdefault(len(found), []).append(title_of(name))
    parts = [
        f"with {count} seed{'s' if count > 1 else ''}: {', '.join(names)}"
        for count, names in sorted(groups.items(), reverse=True)
    ]
    commits = {str(run.meta.get("commit"))[:10] for run in runs if run.meta.get("commit")}
    parts += [f"commit {', '.join(sorted(commits))}"] if commits else []
    return f"{len(whole)} encoders; {'; '.join(parts)}"


def _folder(path: str, key: str) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"{key}={path}: no such folder")
    return folder


def _lines(path: str | None) -> list[str]:
    if path is None:
        return []
    if not Path(path).is_file():
        raise UserError(f"commands={path}: no such file")
    return Path(path).read_text().splitlines()
