"""Made-up result rows in the published format, written as an evaluation would write them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RATES = (0.0, 0.25, 0.5, 0.75)


def retrieval_row(encoder: str, value: float, **changes: Any) -> dict[str, Any]:
    """One row, text-to-video R@1 without loss unless changed; the interval is 0.02 to each side."""
    row = {
        "encoder": encoder,
        "pretrain_seed": 0,
        "head_seed": 0,
        "pattern": "random",
        "fill": "hold",
        "rate": 0.0,
        "drop_seed": 0,
        "direction": "text_to_video",
        "metric": "R@1",
        "value": value,
        "low": value - 0.02,
        "high": value + 0.02,
        "chance": 1 / 200,
        "gallery": 200,
        "queries": 400,
    }
    return row | changes


def probe_row(encoder: str, value: float, **changes: Any) -> dict[str, Any]:
    """One row, attentive motion probe on whole clips unless changed; the interval is 0.02 to each side."""
    row = {
        "encoder": encoder,
        "pretrain_seed": 0,
        "task": "motion",
        "probe": "attentive",
        "control": "none",
        "metric": "top1",
        "value": value,
        "low": value - 0.02,
        "high": value + 0.02,
        "train": 1000,
        "test": 480,
        "classes": 48,
    }
    return row | changes


def retention_rows(encoder: str, values: Sequence[float]) -> list[dict[str, Any]]:
    """A retention curve over RATES."""
    return [retrieval_row(encoder, value, rate=rate) for rate, value in zip(RATES, values, strict=True)]


def write_results(folder: Path, rows: Sequence[Mapping[str, Any]], name: str = "rows", **extra: Any) -> Path:
    """One result file with ``rows`` in ``folder``; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"meta": {"commit": "c0ffee"}, "rows": list(rows), **extra}))
    return folder
