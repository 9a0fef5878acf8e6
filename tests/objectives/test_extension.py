"""A new objective is one file and one YAML: shown on a copy of the source tree that gets nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

RENDEZVOUS = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
"""Of the process group that the tests of one process share: not for the program's own."""

FILE = '''
"""Toy: the spread of the predictions."""

from mmjepa.objectives.base import Objective, register
from mmjepa.objectives.reductions import Term


@register("toy")
class Toy(Objective):
    """Standard deviation of the predictions, in units of ``unit``."""

    terms = ("toy",)

    def __init__(self, shape, unit: float = 1.0) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, views):
        return {"toy": Term(sum(view.predicted_target.float().std() for view in views) / self.unit)}
'''

YAML = """
defaults:
  - baseline
  - _self_
name: toy
objectives:
  toy: {weights: {toy: 0.1}, unit: 2.0}
"""


@pytest.mark.slow
def test_a_toy_objective_trains(tmp_path: Path) -> None:
    for part in ("mmjepa", "configs", "data_prep"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", tmp_path)
    (tmp_path / "mmjepa" / "objectives" / "toy.py").write_text(FILE)
    (tmp_path / "configs" / "objective" / "toy.yaml").write_text(YAML)

    def run(*command: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if name not in RENDEZVOUS}
        environment = {**inherited, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-2000:]

    sizes = [f"sizes.{task}_{part}=16" for task in ("appearance", "motion", "relations") for part in ("train", "test")]
    run("data_prep/sprites.py", "out=data", "processes=1", *sizes)
    small = ["model.width=24", "model.predictor.width=24", "steps=2", "batch_size=4", "optimizer.warmup_steps=1"]
    run("train.py", "experiment=sprites/baseline", "objective=toy", "run=run", "data.root=data", "log.every=1", *small)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    for row in rows:
        assert row["toy"] > 0
        # the experiment keeps the context weight at 0.5 from the start
        assert row["loss"] == pytest.approx(row["predict"] + 0.5 * row["context"] + 0.1 * row["toy"], rel=1e-3)
