"""The study: paired differences per variant and task, and the paper's claims recomputed."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from made_up import probe_row, write_results

from mmjepa.errors import UserError
from mmjepa.evaluation.report import ReportConfig, build_report

CLIPS = 400
PUBLISHED = Path(__file__).parents[3] / "results" / "published.csv"


def probed(folder: Path, encoder: str, seed: int, correct: np.ndarray, names: str = "clip") -> None:
    """A probe evaluation of one encoder and seed, with the clips that it kept."""
    name = f"probe-{encoder}-{seed}"
    write_results(folder, [probe_row(encoder, float(correct.mean()), pretrain_seed=seed)], name)
    keys = np.array([f"{names}-{number}" for number in range(len(correct))])
    np.savez(folder / f"{name}.npz", **{"motion/keys": keys, "motion/none/attentive": correct.astype(bool)})


def differences(folder: Path, published: str | None = None) -> dict[str, dict[str, str]]:
    """Rows of study_differences.csv: label -> column -> value."""
    build_report(ReportConfig(results=str(folder), out=str(folder / "out"), title="t", published=published))
    found: dict[str, dict[str, str]] = {}
    with (folder / "out" / "study_differences.csv").open() as file:
        for line in csv.DictReader(file):
            found.setdefault(line["row"], {})[line["column"]] = line["value"]
    return found


def test_a_replicated_gain_is_marked_and_noise_and_single_seeds_are_not(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    hard = draw.random(CLIPS)  # how hard each clip is: shared by all encoders, which is what pairing takes out
    for seed in range(3):
        noise = draw.normal(0, 0.02, (4, CLIPS))
        probed(tmp_path, "baseline", seed, hard + noise[0] < 0.4)
        probed(tmp_path, "ld", seed, hard + noise[1] < 0.55)
        probed(tmp_path, "hw", seed, hard + noise[2] < 0.4)
    probed(tmp_path, "ltc", 0, hard + noise[3] < 0.7)
    rows = differences(tmp_path)
    gain = rows["motion: LD"]
    assert float(gain["difference (points)"]) == pytest.approx(0.15, abs=0.03)
    assert gain["p (Holm)"].endswith("*")
    assert gain["seeds"] == "3"
    assert not rows["motion: HW"]["p (Holm)"].endswith("*")
    assert rows["motion: LTC"]["p (Holm)"] == "one seed"


def test_differences_are_between_equal_seeds(tmp_path: Path) -> None:
    lucky, unlucky = np.arange(CLIPS) < 300, np.arange(CLIPS) < 100
    for seed, level in ((0, lucky), (1, unlucky)):
        probed(tmp_path, "baseline", seed, level)
        probed(tmp_path, "ld", seed, level)
    probed(tmp_path, "ld", 2, lucky)  # without a baseline of its seed: takes no part
    row = differences(tmp_path)["motion: LD"]
    assert float(row["difference (points)"]) == 0.0
    assert row["seeds"] == "2"


def test_probes_of_different_clips_are_not_compared(tmp_path: Path) -> None:
    probed(tmp_path, "baseline", 0, np.ones(CLIPS))
    probed(tmp_path, "ld", 0, np.ones(CLIPS), names="other")
    with pytest.raises(UserError, match="measured on different clips"):
        differences(tmp_path)


def test_claims_recompute_the_published_arithmetic_and_say_what_ran(tmp_path: Path) -> None:
    probed(tmp_path, "baseline", 0, np.arange(CLIPS) < 100)
    probed(tmp_path, "fwm_hw_ld", 0, np.arange(CLIPS) < 200)
    differences(tmp_path, str(PUBLISHED))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "+5.92 +3.21 −0.30 = +8.83 points" in page
    assert "10 lose more than 5 points on ImageNet-100 against the baseline of seed 42, 5 against" in page
    with (tmp_path / "out" / "claims.csv").open() as file:
        claims = {(line["row"], line["column"]): line["value"] for line in csv.DictReader(file)}
    headline = "FWM-HW-LD on ImageNet-100 (mixed)"
    assert claims[headline, "published"] == "+5.92"
    assert claims[headline, "seed-matched"] == "+9.52"
    assert "no gradient" in claims[headline, "what really ran"]
    assert claims[headline, "ours, corrected"] == "not run"
    assert claims["FWM-HW-LD on Diving-48 (mixed)", "ours, corrected"].startswith("25.0")


def test_a_table_that_is_not_the_published_one_is_refused(tmp_path: Path) -> None:
    probed(tmp_path, "baseline", 0, np.ones(CLIPS))
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="not a table of published results"):
        build_report(ReportConfig(results=str(tmp_path), out=str(tmp_path / "o"), title="t", published=str(other)))


def test_probes_of_other_sizes_do_not_share_a_report(tmp_path: Path) -> None:
    write_results(tmp_path, [probe_row("baseline", 0.5), probe_row("random_init", 0.4, test=100)])
    with pytest.raises(UserError, match="probes of motion on other clips"):
        differences(tmp_path)
