"""The program that times the data path: that it measures every reader and writes all it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_reader_is_timed_and_every_ratio_written(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    budget = ["frames=4", "stride=2", "resolution=32", "workers=1", "batch=4", "clips_per_decode=2", "clips=8"]
    program = [sys.executable, "eval/benchmark_data.py", f"split={videos}", f"out={out}"]
    command = [*program, *budget, "rounds=1", "memory_clips=16"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    written = json.loads(out.read_text())
    rows = {row["reader"]: row for row in written["rows"]}
    assert set(rows) == {"raw_decord", "map_style", "shards_1_per_decode", "shards_2_per_decode"}
    for pair, ratio in written["meta"]["ratios"].items():
        ours, theirs = pair.split("/")
        assert ratio["clock"] == pytest.approx(rows[ours]["clock"] / rows[theirs]["clock"])
        assert pair in result.stdout
    assert written["meta"]["memory"]["clips"] >= 16
