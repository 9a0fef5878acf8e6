"""Two recipes beside each other: seconds of their steps, and what probes read after them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from report.made_up import probe_row, write_results

ROOT = Path(__file__).parents[2]


def pipeline(work: Path, variant: str, seconds: list[float], right: dict[str, float]) -> str:
    """A pipeline's folder with two seeds of one variant; ``right``: share of each task's clips read correctly."""
    for seed in range(2):
        run = work / "train" / variant / f"seed{seed}"
        run.mkdir(parents=True)
        rows = [{"step": 100 * (1 + number), "seconds_per_step": one} for number, one in enumerate(seconds)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        name = f"probe-{variant}-{seed}"
        rows = [probe_row(variant, share, task=task, pretrain_seed=seed) for task, share in right.items()]
        write_results(work / "results", rows, name)
        clips = {}
        for number, (task, share) in enumerate(right.items()):
            count = 100 * (1 + number)
            clips[f"{task}/keys"] = np.array([f"{task}-{clip}" for clip in range(count)])
            clips[f"{task}/none/attentive"] = np.arange(count) < share * count
        np.savez(work / "results" / f"{name}.npz", **clips)
    return str(work / variant)


def compare(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "eval/time_to_quality.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_seconds_are_of_the_median_step_and_probes_the_mean_over_tasks(tmp_path: Path) -> None:
    ours = pipeline(tmp_path / "ours", "baseline", [0.2, 0.2, 9.0], {"motion": 0.4, "relations": 0.6})
    theirs = pipeline(tmp_path / "theirs", "old", [0.1] * 10, {"motion": 0.2, "relations": 0.3})
    out = tmp_path / "quality.json"
    result = compare(f"ours={ours}", f"theirs={theirs}", f"out={out}")
    assert result.returncode == 0, result.stderr
    written = json.loads(out.read_text())
    assert [row["seconds"] for row in written["rows"]] == pytest.approx([300 * 0.2, 1000 * 0.1])
    assert [row["probes"] for row in written["rows"]] == pytest.approx([0.5, 0.25])
    assert written["meta"]["ratio_of_seconds"] == pytest.approx(0.6)
    assert written["meta"]["difference"]["difference"] == pytest.approx(0.25)
    assert written["meta"]["seeds"] == [0, 1]


def test_what_is_not_there_is_named_in_one_line(tmp_path: Path) -> None:
    ours = pipeline(tmp_path / "ours", "baseline", [0.2], {"motion": 0.4})
    result = compare(f"ours={ours}", f"theirs={tmp_path / 'ours' / 'other'}")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].endswith("has no trained and probed 'other'")
