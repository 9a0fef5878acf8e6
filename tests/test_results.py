"""Every number shown is the one in the committed results."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from mmjepa.evaluation.report.findings import headline_readings
from mmjepa.evaluation.report.rows import load_results
from mmjepa.evaluation.report.sections import at_a_glance
from mmjepa.evaluation.report.tables import to_markdown

ROOT = Path(__file__).parents[1]
SPRITES = ROOT / "results" / "sprites"
STUDY = ROOT / "results" / "study"
PREDICTED = ROOT / "results" / "predicted"
PAGES = ("hard_region", "factorised", "latent_dynamics", "temporal", "masking")
"""Of the objectives that the study says something about."""
DIFFERENCE = re.compile(r"[+-]\d+\.\d \[[+-]\d+\.\d, [+-]\d+\.\d\]")
"""Points with their interval, as ``+7.8 [+4.1, +11.5]``."""


def prose(page: str) -> str:
    """Text of a page with its lines joined: where a line breaks must not decide what is found."""
    return " ".join((ROOT / page).read_text().split())


def test_readme_table_is_made_from_the_committed_results() -> None:
    results = load_results(SPRITES / "rows")
    summary = at_a_glance(results, headline_readings(results))
    assert to_markdown(summary) in (ROOT / "README.md").read_text()
    assert summary.caption in prose("README.md")


def test_readme_sentences_are_those_of_the_committed_report() -> None:
    findings = json.loads((SPRITES / "report" / "summary.json").read_text())["findings"]
    readme = prose("README.md")
    assert findings
    for one in findings:
        assert one["sentence"] in readme


@pytest.mark.parametrize("path", sorted((SPRITES / "rows").glob("*.json")), ids=lambda path: path.stem)
def test_results_say_where_they_come_from(path: Path) -> None:
    meta = json.loads(path.read_text())["meta"]
    assert len(meta["commit"]) == 40
    assert meta["versions"]
    assert meta["config"]


@pytest.mark.parametrize("page", ["README.md", *(f"docs/objectives/{name}.md" for name in PAGES)])
def test_differences_in_the_docs_are_those_of_the_committed_study(page: str) -> None:
    rows = []
    for folder in (STUDY, PREDICTED):
        with (folder / "report" / "study_differences.csv").open() as file:
            rows += [row for row in csv.DictReader(file) if row["low"]]
    committed = {
        "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * float(row[name]) for name in ("value", "low", "high")))
        for row in rows
    }
    shown = set(DIFFERENCE.findall(prose(page)))
    assert shown
    assert shown <= committed


def numbers(path: str) -> list[dict[str, Any]]:
    """Rows of a committed result file."""
    rows: list[dict[str, Any]] = json.loads((ROOT / "results" / path).read_text())["rows"]
    return rows


def test_tables_of_the_speed_page_are_those_of_the_committed_results() -> None:
    wanted = [
        f"| {r['model']} | {r['tokens_per_clip']:,} | {r['batch_size']} | {r['seconds_per_step']:.2f} | "
        f"{r['memory_gib']:.2f} | {r['predicted_memory_gib']:.2f} | {r['counted_gflop']:.0f} | "
        f"{r['predicted_to_counted']:.3f} | {r['share_of_peak']:.2f} |"
        for r in numbers("benchmark_cost.json")
    ]
    ways = {(r["tokens"], r["way"]): r["ratio_to_written_out"] for r in numbers("benchmark_attention.json")}
    wanted += [f"| {t:,} | {ways[t, 'blocks']:.2f} | {ways[t, 'fused']:.2f} |" for t, way in ways if way == "fused"]
    steps = [numbers(f"benchmark_step_{precision}.json")[0] for precision in ("bf16", "fp32")]
    wanted += [
        f"| {r['precision']} | {r['seconds_per_step']:.2f} | {r['gflop_per_s']:.0f} | {r['peak_gflop_per_s']:.0f} | "
        f"{r['share_of_peak']:.2f} | {r['memory_gib']:.2f} | {r['ratio']:.2f} |"
        for r in steps
    ]
    for name, row in zip(("ours, 500 steps", "published, 2,500 steps"), numbers("time_to_quality.json"), strict=True):
        reads = f"{row['probes']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        wanted.append(f"| {name} | {row['seconds']:.0f} s | {reads} |")
    one, two, three = (numbers(f"ranks_{name}.json")[0] for name in ("1_zero1", "2_zero1", "2_zero3"))
    page = prose("docs/speed.md")
    assert f"2 ranks bring {two['clips_per_s'] / one['clips_per_s']:.2f} times" in page
    assert f"ZeRO-3 takes {three['seconds_per_step'] / two['seconds_per_step']:.2f} times" in page
    whole, pieces = (numbers(f"ranks_224_{stage}.json")[0] for stage in ("zero1", "zero3"))
    assert f"{pieces['seconds_per_step'] / whole['seconds_per_step']:.2f} times at vit-small" in page
    shown = (ROOT / "docs" / "speed.md").read_text().splitlines()
    assert set(wanted) <= set(shown)
    shares = [line.split("|")[1:4] for line in shown if line.startswith("| `")]
    assert shares
    for name, *values in shares:
        for value, row in zip(values, steps, strict=True):
            assert value.strip() == f"{100 * row['profile'].get('aten::' + name.strip(' `'), 0):.1f} %"


def test_turns_of_ranks_on_the_speed_page_are_the_committed_ones() -> None:
    def clips(kind: str) -> list[float]:
        return [numbers(f"ranks/{kind}-{turn}.json")[0]["clips_per_s"] for turn in range(1, 6)]

    def ratio(kind: str, other: str) -> str:
        ratios = [mine / theirs for mine, theirs in zip(clips(kind), clips(other), strict=True)]
        return f"{median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"

    page = (ROOT / "docs" / "speed.md").read_text()
    for kind, name in (
        ("1_auto", "1 rank, default"),
        ("1_zero1", "1 rank, ZeRO-1"),
        ("2_zero0", "2 ranks, no ZeRO"),
        ("2_zero1", "2 ranks, ZeRO-1 (default)"),
        ("2_zero3", "2 ranks, ZeRO-3"),
    ):
        row = (name, f"{median(clips(kind)):.0f}", ratio(kind, "1_zero1"), ratio(kind, "1_auto"))
        assert f"| {' | '.join(row)} |" in page
    assert f"ZeRO-3 takes {ratio('2_zero1', '2_zero3')} times as long" in prose("docs/speed.md")


def test_factors_in_the_docs_are_those_of_the_committed_study() -> None:
    with (STUDY / "report" / "study_factors.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["low"]]
    committed = {
        "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * float(row[name]) for name in ("value", "low", "high"))) for row in rows
    }
    page = prose("docs/objectives/factorised.md")
    shown = set(re.findall(r"(?<![+-])\b\d+\.\d \[\d+\.\d, \d+\.\d\]", page))
    assert shown
    assert shown <= committed


def test_tables_of_costs_and_of_the_data_path_are_those_of_the_committed_results() -> None:
    page = (ROOT / "docs" / "objectives.md").read_text()
    for row in numbers("overhead.json"):
        line = f"| `{row['objective']}` | {row['ratio']:.2f} | {row['lowest']:.2f} to {row['highest']:.2f} |"
        assert line in page
    meta = json.loads((ROOT / "results" / "benchmark_data.json").read_text())["meta"]
    page = prose("docs/data.md")
    for name, theirs in (("raw decord", "raw_decord"), ("map-style", "map_style")):
        one, four = (meta["ratios"][f"shards_{clips}_per_decode/{theirs}"] for clips in (1, 4))
        values = (one["clock"], one["processor"], four["clock"], four["processor"])
        assert f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} |" in page
    assert f"{meta['memory']['last_quarter']:.0f} MB in three processes" in page
    assert f"{100 * meta['memory']['growth']:+.1f} % from" in page
