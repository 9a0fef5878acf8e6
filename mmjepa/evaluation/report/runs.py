"""Training runs: their metric rows as curves, and what is needed to run them again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmjepa.errors import UserError
from mmjepa.evaluation.report.plots import Chart, Line, Palette, line_chart
from mmjepa.evaluation.report.rows import Estimate

CURVE_POINTS = 200
"""Longer curves are averaged down to this many points."""

MEANINGS = {
    "loss": "weighted sum of the terms",
    "health/rankme": "effective rank of the features",
    "health/channel_std": "standard deviation per channel",
    "health/between_clip_share": "share of the variance that tells clips apart",
    "health/positional_share": "share of the variance that is position",
    "clips_per_s": "clips per second",
    "data_wait": "share of the time spent waiting for data",
    "flops_share": "share of peak FLOP/s",
    "flops_per_s": "FLOP/s",
    "seconds_per_step": "seconds per optimiser step",
    "decode_failures": "videos skipped so far",
    "lr": "learning rate",
    "grad_norm": "norm of the gradient before clipping",
    "ema_momentum": "momentum of the teacher",
}
"""Quantities that are no objective's term, in the order of the page; the terms come after the loss."""


@dataclass(frozen=True)
class Run:
    """One training run: folder name, the encoder it trains, its metric rows, provenance and configuration (YAML)."""

    name: str
    encoder: str
    rows: list[dict[str, Any]]
    meta: dict[str, Any]
    config: str


def load_runs(folder: Path) -> list[Run]:
    """Every run (a folder with metrics.jsonl) below ``folder``, laid out as <encoder>/<run>, by name."""
    runs = []
    for metrics in sorted(folder.rglob("metrics.jsonl")):
        path = metrics.parent
        name = path.relative_to(folder).as_posix()
        runs.append(Run(name, name.split("/")[0], _metric_rows(metrics), _meta(path), _config(path)))
    return runs


def training_charts(runs: Sequence[Run], palette: Palette) -> list[Chart]:
    """One chart per logged quantity, one line per run; loss first, then terms by name, health, speed."""
    logged = dict.fromkeys(key for run in runs for row in run.rows for key, value in row.items() if _is_number(value))
    terms = sorted(key for key in logged if key not in MEANINGS and key != "step")
    known = [key for key in MEANINGS if key in logged]
    return [_chart(key, runs, palette) for key in (*known[:1], *terms, *known[1:])]


def _chart(key: str, runs: Sequence[Run], palette: Palette) -> Chart:
    lines = []
    for run in runs:
        points = [(row["step"], row[key]) for row in run.rows if _is_number(row.get(key))]
        if points:
            steps, values = _thinned(np.array(points, dtype=float))
            lines.append(Line(run.encoder, steps, [Estimate(value, value, value, 1) for value in values]))
    return line_chart(key, _meaning(key), lines, palette, "optimiser step", key)


def _meaning(key: str) -> str:
    if key.endswith("_valid"):
        return "share of masks and clips for which the term is defined"
    return MEANINGS.get(key, "unweighted term")


def _thinned(points: np.ndarray) -> tuple[list[float], list[float]]:
    """Points (N, 2) averaged within equal runs of neighbours, so that at most CURVE_POINTS remain."""
    groups = np.array_split(points, min(len(points), CURVE_POINTS))
    means = np.array([group.mean(axis=0) for group in groups])
    return means[:, 0].tolist(), means[:, 1].tolist()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _metric_rows(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error


def _meta(path: Path) -> dict[str, Any]:
    file = path / "meta.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def _config(path: Path) -> str:
    file = path / "config.yaml"
    return file.read_text() if file.is_file() else ""
