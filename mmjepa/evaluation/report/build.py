"""Build the report: read the rows, write the page with CSV, JSON and PNG beside it."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from mmjepa.errors import UserError
from mmjepa.evaluation.report.comparisons import compare_encoders
from mmjepa.evaluation.report.findings import Finding, headline, headline_probe
from mmjepa.evaluation.report.hits import load_hits
from mmjepa.evaluation.report.page import glossary_section, page, reproducibility_section
from mmjepa.evaluation.report.plots import Palette, save_png
from mmjepa.evaluation.report.probe_clips import load_clips
from mmjepa.evaluation.report.published import published_section, read_published
from mmjepa.evaluation.report.rows import ProbeRow, Results, RetrievalRow, load_results, table_order
from mmjepa.evaluation.report.runs import Run, load_runs, training_charts
from mmjepa.evaluation.report.sections import (
    Section,
    at_a_glance,
    chart_grid,
    comparison_section,
    hard_negative_section,
    probe_section,
    retention_section,
    retrieval_section,
    robustness_section,
)
from mmjepa.evaluation.report.strips import ClipPictures, parse_examples, query_html
from mmjepa.evaluation.report.study import study_comparisons, study_section
from mmjepa.evaluation.report.style import colours, title_of
from mmjepa.evaluation.report.tables import Table, to_csv, to_markdown, to_text

PAGE = "report.html"
OPEN_QUERIES = 3
"""Example queries that are shown at once; the others unfold."""


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
        return "\n".join([to_text(self.summary), "", *(one.sentence for one in self.findings)])


def build_report(config: ReportConfig) -> Report:
    """Write ``report.html`` and its companions into ``config.out``. Raises UserError on missing or damaged input."""
    if Path(config.out).exists() and not Path(config.out).is_dir():
        raise UserError(f"out={config.out}: is a file, not a folder")
    results = load_results(_folder(config.results, "results"))
    runs = [] if config.runs is None else load_runs(_folder(config.runs, "runs"))
    encoders = sorted({*results.encoders(), *(run.encoder for run in runs)}, key=table_order)
    palette = colours(encoders)
    hits = load_hits(results)
    comparisons = compare_encoders(results.trained(), hits)
    findings, summary = headline(results, comparisons), at_a_glance(results)
    study = _study_sections(results, runs, config.published)
    leads = not results.retrieval  # a study of probes alone is about nothing else
    sections = [
        *(study if leads else []),
        retention_section(results, hits, palette),
        retrieval_section(results),
        comparison_section(comparisons),
        robustness_section(results),
        hard_negative_section(results),
        probe_section(results, palette),
        *([] if leads else study),
        _examples_section(results, config.splits),
        _training_section(runs, palette),
        reproducibility_section(runs, results.metas, _lines(config.commands)),
        glossary_section(),
    ]
    out = Path(config.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={out}: cannot make the folder ({error.strerror})") from error
    (out / PAGE).write_text(page(config.title, _subtitle(results, runs), findings, summary, sections, palette))
    sentences = "".join(f"* {one.sentence}\n" for one in findings)
    (out / "summary.md").write_text(f"{to_markdown(summary)}\n\n{summary.caption}\n\n{sentences}")
    _write_companions(out, results, findings, [summary, *(table for section in sections for table in section.tables)])
    for section in sections:
        for name, charts in section.charts.items():
            save_png(charts, out / f"{name}.png")
    return Report(out / PAGE, findings, summary)


def _study_sections(results: Results, runs: Sequence[Run], published: str | None) -> list[Section]:
    """The study, where variants were probed beside the baseline, and the paper's figures, where they are given."""
    probe = headline_probe(results)
    clips = {} if probe is None else load_clips(results, probe)
    comparisons = study_comparisons(clips)
    sections = [] if published is None else [published_section(read_published(Path(published)), comparisons)]
    study = study_section(clips, comparisons, runs)
    return sections if study is None else [study, *sections]


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


def _examples_section(results: Results, splits: Sequence[str]) -> Section:
    title = "Example retrievals"
    if not results.examples:
        return Section(
            "examples", title, '<p class="missing">No examples were written by the retrieval evaluation.</p>'
        )
    pictures = ClipPictures([Path(split) for split in splits])
    queries = parse_examples(results.examples)
    words = "Query, its true clip, and the first clips each encoder retrieved; time runs from left to right."
    groups = [query_html(query, group, pictures) for query, group in queries.items()]
    more = f"<details><summary>More queries</summary>{''.join(groups[OPEN_QUERIES:])}</details>"
    body = f'<p class="soft">{words}</p>' + "".join(groups[:OPEN_QUERIES])
    return Section("examples", title, body + (more if len(groups) > OPEN_QUERIES else ""))


def _training_section(runs: Sequence[Run], palette: Palette) -> Section:
    charts = training_charts(runs, palette)
    if not charts:
        return Section("training", "Training", '<p class="missing">No training runs were given.</p>')
    return Section("training", "Training", chart_grid(charts, palette), charts={"training": charts})


def _subtitle(results: Results, runs: Sequence[Run]) -> str:
    seeds = {row.pretrain_seed for row in results.retrieval if row.encoder in results.trained()}
    commits = {str(run.meta.get("commit"))[:10] for run in runs if run.meta.get("commit")}
    parts = [
        f"{len(results.encoders())} encoders: {', '.join(map(title_of, results.encoders()))}",
        f"pretraining seeds: {len(seeds)}",
    ]
    return "; ".join(parts + ([f"commit {', '.join(sorted(commits))}"] if commits else []))


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
