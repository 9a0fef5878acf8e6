"""The study: paired differences per variant and task, and the paper's claims recomputed."""

from __future__ import annotations

import csv
import json
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


def tables(
    folder: Path, published: str | None = None, runs: str | None = None
) -> dict[str, dict[tuple[str, str], str]]:
    """Every table of the report: name -> (row, column) -> value."""
    build_report(ReportConfig(results=str(folder), out=str(folder / "out"), title="t", published=published, runs=runs))
    found = {}
    for path in (folder / "out").glob("*.csv"):
        if not path.stem.endswith("_rows"):
            with path.open() as file:
                found[path.stem] = {(line["row"], line["column"]): line["value"] for line in csv.DictReader(file)}
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
    found = tables(tmp_path)
    rows = found["study_differences"]
    assert float(rows["motion: LD", "difference (points)"]) == pytest.approx(0.15, abs=0.03)
    assert rows["motion: LD", "p (Holm)"].endswith("*")
    assert rows["motion: LD", "seeds"] == "3"
    assert not rows["motion: HW", "p (Holm)"].endswith("*")
    assert ("motion: LTC", "p (Holm)") not in rows
    assert found["study_single"]["LTC", "motion top-1 (− baseline)"] == "65.5 (+30.0)"
    words = (tmp_path / "out" / "summary.md").read_text()
    assert "Significant gains: motion: LD +1" in words
    assert "Significant losses: none" in words
    assert "No difference found: motion: HW." in words
    assert "Suggestive" not in words
    assert "Above random init: motion: cannot be said, random init was not probed with several seeds." in words
    assert "1 variant was trained with one seed; nothing is claimed of it" in words


def test_a_variant_stands_beside_what_its_training_took_and_left(tmp_path: Path) -> None:
    for encoder, seconds, ranks in (("baseline", 0.2, (9.0, 30.0)), ("kinematic", 0.3, (9.0, 1.25))):
        probed(tmp_path / "rows", encoder, 0, np.arange(CLIPS) % 2 == 0)
        run = tmp_path / "train" / encoder / "seed0"
        run.mkdir(parents=True)
        rows = [
            {"step": 10 * (1 + number), "loss": 1.0, "seconds_per_step": seconds, "health/rankme": rank}
            for number, rank in enumerate(ranks)
        ]
        rows.append({"step": 30, "loss": 1.0, "seconds_per_step": seconds})  # health is measured less often
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = tables(tmp_path / "rows", runs=str(tmp_path / "train"))["study_single"]
    assert (found["kinematic", "step time"], found["kinematic", "RankMe"]) == ("1.50", "1.2")


def test_where_nothing_is_above_random_init_nothing_is_told(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for seed in range(3):
        for encoder in ("baseline", "ld", "random_init"):
            probed(tmp_path, encoder, seed, draw.random(CLIPS) < 0.1)
    tables(tmp_path)
    assert "motion: no encoder is above random init beyond noise" in (tmp_path / "out" / "summary.md").read_text()


def test_headline_tells_how_far_the_best_and_the_worst_are_above_random_init(tmp_path: Path) -> None:
    hits = {"baseline": 200, "ld": 280, "delta": 120, "ac": 198, "random_init": 40}
    for encoder, count in hits.items():
        for seed in range(3):
            probed(tmp_path, encoder, seed, np.arange(CLIPS) < count)
    found = tables(tmp_path, str(PUBLISHED))
    words = (tmp_path / "out" / "summary.md").read_text()
    assert "motion: 4 of 4 encoders are; best LD +60.0 [" in words
    assert ", worst delta +20.0 [" in words
    assert "Significant losses: motion: delta −20.0 [" in words
    study = found["study"]
    assert study["random init", "motion − baseline"].startswith("−40.0 [")
    assert study["LD", "motion paper, D-48"] == "6.95 (−1.73)"
    claim = found["claims"]["Kinematic loses 2.5 to 2.9 on Diving-48", "our runs"]
    assert claim.startswith("random init −40.0 [")  # what the published code evaluated
    assert (tmp_path / "out" / "study_differences.png").stat().st_size > 0


def test_what_holms_correction_takes_back_is_called_suggestive(tmp_path: Path) -> None:
    for seed, gain in enumerate((4, 8, 12)):
        for encoder in ("baseline", *(f"variant_{number}" for number in range(8))):
            probed(tmp_path, encoder, seed, np.arange(CLIPS) < 120)
        probed(tmp_path, "ld", seed, np.arange(CLIPS) < 120 + gain)
    rows = tables(tmp_path)["study_differences"]
    assert not rows["motion: LD", "p (Holm)"].endswith("*")
    assert "Suggestive alone, but not among 9 comparisons: LD +2.0 [" in (tmp_path / "out" / "summary.md").read_text()


def test_variants_that_nobody_published_have_their_row(tmp_path: Path) -> None:
    for encoder in ("baseline", "ld_causal"):
        for seed in range(2):
            probed(tmp_path, encoder, seed, np.arange(CLIPS) < 100)
    study = tables(tmp_path, str(PUBLISHED))["study"]
    assert study["LD-causal", "motion paper, D-48"] == ""
    assert study["LD-causal", "seeds"] == "2"


def test_intervals_over_seeds_stay_where_a_share_can_be(tmp_path: Path) -> None:
    for seed, count in enumerate((0, 40, 8)):
        probed(tmp_path / "clips", "baseline", seed, np.arange(CLIPS) < count)
        write_results(tmp_path / "rows", [probe_row("baseline", count / CLIPS, pretrain_seed=seed)], str(seed))
    for folder in (tmp_path / "clips", tmp_path / "rows"):
        tables(folder)
        with (folder / "out" / "summary.csv").open() as file:
            (row,) = (line for line in csv.DictReader(file) if line["column"] == "motion probe")
        assert 0.0 <= float(row["low"]) < float(row["value"]) < float(row["high"]) <= 1.0


def test_a_task_that_only_some_seeds_learned_is_undecided(tmp_path: Path) -> None:
    hits = {"baseline": (60, 62, 64), "ld": (100, 160, 230), "random_init": (60, 60, 60)}
    hits |= {f"variant_{number}": (60, 60, 60) for number in range(8)}
    for encoder, counts in hits.items():
        for seed, count in enumerate(counts):
            probed(tmp_path, encoder, seed, np.arange(CLIPS) < count)
    tables(tmp_path)
    words = (tmp_path / "out" / "summary.md").read_text()
    assert "motion: undecided. Alone, LD +25.8 [" in words
    assert "No difference found: motion: LD" in words, "what an undecided task shows is still told"


def test_factors_probed_alone_stand_beside_their_encoder_and_are_no_variants(tmp_path: Path) -> None:
    for seed in range(2):
        for encoder, hits in (("baseline", 100), ("fwm", 120), ("fwm_appearance", 40), ("fwm_dynamics", 110)):
            probed(tmp_path, encoder, seed, np.arange(CLIPS) < hits)
    found = tables(tmp_path)
    assert {row for row, _ in found["study_differences"]} == {"motion: FWM"}
    assert float(found["study_factors"]["FWM", "motion appearance"]) == 0.1
    assert {row for row, _ in found["study_factors"]} == {"FWM"}


def test_seeds_that_disagree_are_no_gain(tmp_path: Path) -> None:
    """Three seeds that all gain, by very different amounts: over clips alone it would be certain."""
    for seed, gain in enumerate((0.02, 0.05, 0.4)):
        probed(tmp_path, "baseline", seed, np.arange(CLIPS) < 100)
        probed(tmp_path, "ld", seed, np.arange(CLIPS) < 100 + gain * CLIPS)
    assert not tables(tmp_path)["study_differences"]["motion: LD", "p (Holm)"].endswith("*")


def test_differences_are_between_equal_seeds(tmp_path: Path) -> None:
    lucky, unlucky = np.arange(CLIPS) < 300, np.arange(CLIPS) < 100
    for seed, level in ((0, lucky), (1, unlucky)):
        probed(tmp_path, "baseline", seed, level)
        probed(tmp_path, "ld", seed, level)
    probed(tmp_path, "ld", 2, lucky)  # without a baseline of its seed: takes no part
    rows = tables(tmp_path)["study_differences"]
    assert float(rows["motion: LD", "difference (points)"]) == 0.0
    assert rows["motion: LD", "seeds"] == "2"


def test_probes_of_different_clips_are_not_compared(tmp_path: Path) -> None:
    probed(tmp_path, "baseline", 0, np.ones(CLIPS))
    probed(tmp_path, "ld", 0, np.ones(CLIPS), names="other")
    with pytest.raises(UserError, match="measured on different clips"):
        tables(tmp_path)


def test_claims_recompute_the_published_arithmetic_and_say_what_ran(tmp_path: Path) -> None:
    probed(tmp_path, "baseline", 0, np.arange(CLIPS) < 100)
    probed(tmp_path, "fwm_hw_ld", 0, np.arange(CLIPS) < 200)
    claims = tables(tmp_path, str(PUBLISHED))["claims"]
    headline = "FWM-HW-LD gains 5.92 on ImageNet-100"
    assert claims[headline, "published"] == "30.78 − 24.86 = +5.92"
    assert claims[headline, "own seed"] == "30.78 − 21.26 = +9.52"
    assert "no gradient" in claims[headline, "what really ran"]
    assert claims[headline, "our runs"] == "not run"  # no appearance probe here
    diving = claims["FWM-HW-LD keeps within 0.30 on Diving-48", "our runs"]
    assert diving.startswith("FWM-HW-LD +25.0")
    assert diving.endswith("one seed: no verdict")
    net = next(value for (row, column), value in claims.items() if "net gain" in row and column == "published")
    assert net == "+5.92 +3.21 −0.30 = +8.83"
    losers = {column: value for (row, column), value in claims.items() if row.startswith("10 of 14")}
    assert (losers["published"], losers["own seed"]) == ("10 of 14", "5 of 14")


def test_a_table_that_is_not_the_published_one_is_refused(tmp_path: Path) -> None:
    probed(tmp_path, "baseline", 0, np.ones(CLIPS))
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="not a table of published results"):
        build_report(ReportConfig(results=str(tmp_path), out=str(tmp_path / "o"), title="t", published=str(other)))


def test_probes_of_other_sizes_do_not_share_a_report(tmp_path: Path) -> None:
    write_results(tmp_path, [probe_row("baseline", 0.5), probe_row("random_init", 0.4, test=100)])
    with pytest.raises(UserError, match="probes of motion on other clips"):
        tables(tmp_path)
