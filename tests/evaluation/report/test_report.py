"""What a reader of the report relies on: numbers are the rows' numbers, words say what the intervals say."""

from __future__ import annotations

import csv
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made_up import probe_row, retention_rows, retrieval_row, write_results

from mmjepa.errors import UserError
from mmjepa.evaluation.report import Report, ReportConfig, build_report
from mmjepa.evaluation.report.hits import Hits
from mmjepa.evaluation.report.retention import Curve, retained
from mmjepa.evaluation.report.rows import Estimate, load_results


def report_of(folder: Path, rows: list[dict], **settings: object) -> Report:
    """Build a report of ``rows``, under ``folder``."""
    results = write_results(folder / "results", rows)
    return build_report(ReportConfig(results=str(results), out=str(folder / "report"), title="A title", **settings))


def sentences(report: Report) -> str:
    """The headline as one text."""
    return " ".join(finding.sentence for finding in report.findings)


@pytest.mark.parametrize(
    ("trained", "words"),
    [
        (0.30, "Every trained encoder (baseline) beats random init on text-to-video R@1 by more than the intervals."),
        (0.12, "baseline does not beat random init on text-to-video R@1 (above, and the intervals overlap): 12.0 ["),
        (0.09, "baseline does not beat random init on text-to-video R@1 (not above, and the intervals overlap): 9.0 ["),
        (0.02, "baseline does not beat random init on text-to-video R@1, it is below: 2.0 [0.0, 4.0] against"),
    ],
)
def test_headline_says_what_the_intervals_say(tmp_path: Path, trained: float, words: str) -> None:
    report = report_of(tmp_path, [retrieval_row("baseline", trained), retrieval_row("random_init", 0.10)])
    assert words in sentences(report)
    assert words in report.page.read_text()


def test_headline_gives_the_numbers(tmp_path: Path) -> None:
    report = report_of(tmp_path, [retrieval_row("baseline", 0.3), retrieval_row("random_init", 0.1)])
    assert "baseline beats random init on text-to-video R@1: 30.0 [28.0, 32.0] against 10.0 [8.0, 12.0] %." in (
        sentences(report)
    )


def test_headline_says_when_no_encoder_works(tmp_path: Path) -> None:
    rows = [retrieval_row(name, 0.1) for name in ("baseline", "ld", "random_init")]
    assert sentences(report_of(tmp_path, rows)).startswith("No trained encoder beats random init")


def test_headline_names_the_row_that_is_missing(tmp_path: Path) -> None:
    report = report_of(tmp_path, [retrieval_row("baseline", 0.3)])
    assert "cannot be said, random init was not measured" in sentences(report)


def test_headline_counts_the_probes_won(tmp_path: Path) -> None:
    values = {"motion": (0.5, 0.3), "relations": (0.6, 0.4), "appearance": (0.31, 0.30)}
    rows = [
        probe_row(encoder, value, task=task)
        for task, pair in values.items()
        for encoder, value in zip(("fwm_hw_ld", "random_init"), pair, strict=True)
    ]
    words = "FWM-HW-LD is above random init by more than the intervals on 2 of 3 attentive probes (motion, relations)."
    assert words in sentences(report_of(tmp_path, rows))


def test_one_seed_keeps_its_bootstrap_interval(tmp_path: Path) -> None:
    report = report_of(tmp_path, [retrieval_row("baseline", 0.3, low=0.25, high=0.45)])
    assert "30.0 [25.0, 45.0]" in report.text()


def test_seeds_are_joined_with_the_variance_between_them(tmp_path: Path) -> None:
    values, half = [0.20, 0.30, 0.34], 0.02
    rows = [retrieval_row("baseline", v, pretrain_seed=s, low=v - half, high=v + half) for s, v in enumerate(values)]
    report_of(tmp_path, rows)
    with (tmp_path / "report" / "retrieval_text_to_video.csv").open() as file:
        cell = next(line for line in csv.DictReader(file) if line["column"] == "R@1")
    assert math.isclose(float(cell["value"]), np.mean(values))
    # Never narrower than the seeds alone would say with a normal interval, nor than one seed's own videos.
    between = 1.96 * np.std(values, ddof=1) / math.sqrt(3)
    assert (float(cell["high"]) - float(cell["low"])) / 2 > max(between, half)
    assert cell["seeds"] == "3"


def test_best_is_bold_only_when_intervals_are_apart(tmp_path: Path) -> None:
    apart = report_of(tmp_path / "apart", [retrieval_row("baseline", 0.3), retrieval_row("random_init", 0.2)])
    close = report_of(tmp_path / "close", [retrieval_row("baseline", 0.3), retrieval_row("random_init", 0.27)])
    assert "<b>30.0</b>" in apart.page.read_text()
    assert '<td class="best">' not in close.page.read_text()


def test_robustness_scores_of_a_known_curve(tmp_path: Path) -> None:
    report_of(tmp_path, retention_rows("baseline", [0.4, 0.4, 0.2, 0.1]))
    with (tmp_path / "report" / "robustness.csv").open() as file:
        cells = {line["column"]: line["value"] for line in csv.DictReader(file)}
    # Mean over the lossy rates 0.7 / 3: absolute 1 - (0.4 - 0.2333), relative 0.2333 / 0.4; area by hand.
    assert (cells["absolute"], cells["relative"]) == ("0.83", "0.58")
    assert cells["area"] == "0.71"
    assert cells["half rate"] == "50 %"


def test_curve_without_a_clean_hit_is_left_out_of_the_relative_chart_only(tmp_path: Path) -> None:
    report = report_of(tmp_path, retention_rows("baseline", [0.4, 0.3, 0.2, 0.1]) + retention_rows("ld", [0.0] * 4))
    absolute, relative = report.page.read_text().split("Share of the clean R@1")[:2]
    assert ">LD</text>" in absolute
    assert ">LD</text>" not in relative.split("</section>")[0]


def test_rows_are_written_beside_the_page_unrounded(tmp_path: Path) -> None:
    report_of(tmp_path, [retrieval_row("baseline", 0.123456789), probe_row("baseline", 0.987654321)])
    assert "0.123456789" in (tmp_path / "report" / "retrieval_rows.csv").read_text()
    assert "0.987654321" in (tmp_path / "report" / "probe_rows.csv").read_text()
    assert "| baseline | 12.3 [10.3, 14.3] |" in (tmp_path / "report" / "summary.md").read_text()
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert summary["meta"]["rows.json"]["commit"] == "c0ffee"


def test_page_of_sparse_results_says_in_one_line_what_is_missing(tmp_path: Path) -> None:
    text = report_of(tmp_path, [probe_row("baseline", 0.4)]).page.read_text()
    line = text[text.index("Nothing was given for: ") :].split("</p>")[0]
    for what in ("retrieval as frames are lost", "paired comparisons", "example retrievals", "training"):
        assert what in line
    assert "R@1 text" not in text


def test_probe_table_carries_the_control_rows(tmp_path: Path) -> None:
    rows = [probe_row("baseline", 0.4), probe_row("baseline", 0.2, control="single_frame")]
    rows += [probe_row("raw_patches", 0.1), probe_row("majority", 0.03, probe="majority")]
    text = report_of(tmp_path, rows).page.read_text()
    for label in ("baseline, single frame", "raw patches", "majority class"):
        assert f"<td>{label}</td>" in text


def write_ranks(results: Path, encoder: str, seed: int, hits: np.ndarray) -> None:
    """A result file of one encoder and the hits of every query beside it; two captions per video."""
    row = retrieval_row(encoder, float(hits.mean()), pretrain_seed=seed)
    write_results(results, [row], name=f"{encoder}-{seed}")
    video = np.repeat(np.arange(len(hits) // 2), 2)
    values = hits.astype(np.float32)
    arrays = {"clean/text_to_video/R@1": values, "random-hold-0.5-0/text_to_video/R@1": values}
    arrays |= {"caption_video": video, "keys": np.array([f"clip-{number}" for number in range(len(hits) // 2)])}
    np.savez(results / f"{encoder}-{seed}.npz", **arrays)


def test_paired_comparison_finds_a_difference_that_overlapping_intervals_hide(tmp_path: Path) -> None:
    # Hard and easy queries are the same for both: the trained encoder hits ten more of 200, and loses none.
    control = np.arange(200) % 2 == 0
    trained = control | (np.arange(200) < 20)
    for seed in (0, 1):
        write_ranks(tmp_path / "results", "baseline", seed, trained)
        write_ranks(tmp_path / "results", "random_init", seed, control)
    config = ReportConfig(results=str(tmp_path / "results"), out=str(tmp_path / "report"), title="t")
    words = sentences(build_report(config))
    assert "on the same queries 5.0 [" in words
    assert "not to be told from noise" not in words
    with (tmp_path / "report" / "comparisons.csv").open() as file:
        cells = [line for line in csv.DictReader(file) if line["column"] == "difference (points)"]
    assert [float(cell["value"]) for cell in cells] == pytest.approx([0.05, 0.05])
    assert all(float(cell["low"]) > 0 for cell in cells)


def test_share_that_is_kept_has_an_interval_that_pairs_clean_and_lossy_hits(tmp_path: Path) -> None:
    # Whatever is resampled, exactly half of the hits survive: clean and lossy hits go together.
    clean = np.ones(200)
    lossy = np.tile([1.0, 0.0], 100)
    hits = Hits({"clean": clean, "burst-hold-0.5-0": lossy}, np.repeat(np.arange(100), 2), keys=())
    one = Estimate(1.0, 0.9, 1.0, 1)
    curve = Curve("baseline", "burst", "hold", [0.0, 0.5], [one, Estimate(0.5, 0.3, 0.7, 1)])
    shares = retained(curve, {0: hits})
    assert shares == [Estimate(1.0, 1.0, 1.0, 1), Estimate(0.5, 0.5, 0.5, 1)]


def test_runs_on_different_queries_are_not_compared(tmp_path: Path) -> None:
    write_ranks(tmp_path / "results", "baseline", 0, np.ones(20, dtype=bool))
    write_ranks(tmp_path / "results", "random_init", 0, np.ones(40, dtype=bool))
    with pytest.raises(UserError, match="different queries"):
        build_report(ReportConfig(results=str(tmp_path / "results"), out=str(tmp_path / "report"), title="t"))


def test_the_majority_row_of_every_probe_file_counts_once(tmp_path: Path) -> None:
    majority = probe_row("majority", 0.1, probe="majority", pretrain_seed=None)
    for name in ("baseline", "ld"):
        write_results(tmp_path / "results", [majority, probe_row(name, 0.4)], name)
    page = build_report(ReportConfig(results=str(tmp_path / "results"), out=str(tmp_path / "report"), title="t")).page
    assert page.read_text().count("<td>majority class</td>") == 2  # in the summary and in the probe table
    write_results(tmp_path / "results", [{**majority, "value": 0.2}], "other")
    with pytest.raises(UserError, match="two files give the row majority"):
        build_report(ReportConfig(results=str(tmp_path / "results"), out=str(tmp_path / "report"), title="t"))


def test_hard_negatives_have_a_table_of_their_own(tmp_path: Path) -> None:
    changes = {"direction": "video_to_text", "metric": "motion_swapped", "gallery": 2}
    text = report_of(tmp_path, [retrieval_row("baseline", 0.81, **changes)]).page.read_text()
    table = text[text.index('<table id="hard_negatives">') :]
    assert "motion swapped" in table
    assert "81.0" in table


class _References(HTMLParser):
    """Collects what a page would fetch or run, and checks that tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        sources = [value or "" for name, value in attrs if name == "src"]
        self.fetched += [source for source in sources if not source.startswith("data:")]
        self.fetched += [tag] if tag in ("script", "link", "iframe") else []
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_well_formed_and_fetches_nothing(tmp_path: Path) -> None:
    run = tmp_path / "train" / "baseline" / "seed0"
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": s, "loss": 1 / s, "jepa": 2.0}) + "\n" for s in (1, 2))
    )
    (run / "meta.json").write_text(json.dumps({"commit": "0123456789abcdef", "versions": {"torch": "2.14.1"}}))
    rows = [*retention_rows("baseline", [0.4, 0.3, 0.2, 0.1]), probe_row("baseline", 0.4)]
    text = report_of(tmp_path, rows, runs=str(tmp_path / "train")).page.read_text()
    page = _References()
    page.feed(text)
    assert not page.fetched
    assert not page.open
    assert not re.search(r"url\((?!#)", text)
    for words in ("<strong>jepa</strong>", "2.14.1", "commit 0123456789"):
        assert words in text


def test_words_of_the_data_cannot_become_markup(tmp_path: Path) -> None:
    results = write_results(
        tmp_path / "results",
        [retrieval_row("baseline", 0.4)],
        examples=[{"query": "<script>x</script>", "truth": ["a"], "retrieved": ["b", "a"], "encoder": "baseline"}],
    )
    report = build_report(ReportConfig(results=str(results), out=str(tmp_path / "report"), title="<b>title"))
    text = report.page.read_text()
    assert "<script>" not in text
    assert "<b>title" not in text
    assert text.count("✗ wrong") == 1
    assert text.count("✓ right") == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not valid JSON"),
        ('{"meta": {}, "rows": [{"encoder": "baseline"}]}', "lacks pretrain_seed"),
        ("[]", "no result files"),
    ],
)
def test_unusable_results_end_in_one_line(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "rows.json").write_text(content)
    with pytest.raises(UserError, match=words):
        build_report(ReportConfig(results=str(tmp_path), out=str(tmp_path / "report"), title="t"))


def test_results_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    results = tmp_path / "results"
    write_results(results, [retrieval_row("baseline", 0.2)], name="a")
    write_results(results, [retrieval_row("baseline", 0.3)], name="b")
    with pytest.raises(UserError, match="two files give the row baseline"):
        load_results(results)
    write_results(results, [retrieval_row("fwm_hw_ld", 0.3, gallery=7)], name="b")
    with pytest.raises(UserError, match="galleries of different sizes"):
        load_results(results)


def test_runs_on_other_queries_are_not_compared(tmp_path: Path) -> None:
    results = tmp_path / "results"
    for encoder in ("baseline", "random_init"):
        write_ranks(results, encoder, 0, np.arange(8) % 2 == 0)
    path = results / "random_init-0.npz"
    arrays = dict(np.load(path)) | {"keys": np.array([f"other-{number}" for number in range(4)])}
    np.savez(path, **arrays)
    with pytest.raises(UserError, match="different queries"):
        build_report(ReportConfig(results=str(results), out=str(tmp_path / "report")))
