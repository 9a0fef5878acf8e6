"""The cost of objectives, as the program prints it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from programs import ROOT, start

SMALL = ["model=nano", "model.frames=8", "model.resolution=64", "data=sprites", "data.frames=8", "batch_size=2"]


@pytest.mark.slow
def test_every_objective_is_set_beside_the_baseline(tmp_path: Path) -> None:
    out = tmp_path / "overhead.json"
    result = start(
        ROOT / "eval" / "benchmark_objectives.py",
        *SMALL,
        "objectives=[hw,hamiltonian]",
        "repeats=3",
        "jobs=2",
        f"out={out}",
    )
    assert result.returncode == 0, result.stderr
    cheap, hamiltonian = json.loads(out.read_text())["rows"]
    assert [cheap["objective"], hamiltonian["objective"]] == ["hw", "hamiltonian"]
    for row in (cheap, hamiltonian):  # how large they are says nothing: steps of milliseconds, on a busy machine
        assert 0 < row["lowest"] <= row["ratio"] <= row["highest"]


def test_unknown_objectives_are_refused_in_one_line() -> None:
    result = start(ROOT / "eval" / "benchmark_objectives.py", "objectives=[nope]")
    assert result.returncode == 2
    assert "no objective=nope" in result.stderr.splitlines()[-1]
