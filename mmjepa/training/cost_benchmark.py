"""How time, memory and arithmetic of a step grow with tokens, batch and model: measured, beside the cost model."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmjepa.errors import UserError

PROGRAM = Path(__file__).resolve().parents[2] / "eval" / "benchmark_step.py"
COPIED = (
    "precision",
    "threads",
    "tokens_per_clip",
    "parameters",
    "seconds_per_step",
    "memory_gib",
    "predicted_memory_gib",
    "counted_gflop",
    "predicted_gflop",
    "planned_gflop",
    "share_of_peak",
)


@dataclass
class CostBenchmarkConfig:
    """The first of ``models``, ``frames`` and ``batches`` is the base; every other value is measured in its place.

    precision, warmup, repeats: as of the step benchmark. out: a .json file (null: print only).
    """

    models: list[str] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    resolution: int = 64
    precision: str = "auto"
    warmup: int = 2
    repeats: int = 5
    out: str | None = None

    def __post_init__(self) -> None:
        if not (self.models and self.frames and self.batches):
            raise UserError("models, frames and batches: give at least one of each")


def cases(config: CostBenchmarkConfig) -> Iterator[tuple[str, int, int]]:
    """(model, frames, batch) of every measurement, the base first."""
    model, frames, batch = config.models[0], config.frames[0], config.batches[0]
    yield model, frames, batch
    yield from ((model, other, batch) for other in config.frames[1:])
    yield from ((model, frames, other) for other in config.batches[1:])
    yield from ((other, frames, batch) for other in config.models[1:])


def measure_cost(config: CostBenchmarkConfig) -> Iterator[dict[str, Any]]:
    """A row per case, each measured in a process of its own: a process's peak memory never falls."""
    for model, frames, batch in cases(config):
        settings = [f"model={model}", f"batch_size={batch}", f"masking.group={batch}"]
        for name, value in (("frames", frames), ("resolution", config.resolution)):
            settings += [f"model.{name}={value}", f"data.{name}={value}"]
        settings += [f"{name}={getattr(config, name)}" for name in ("precision", "warmup", "repeats")]
        figures = _run([*settings, "count=true"])
        row = {"model": model, "frames": frames, "batch_size": batch, **{name: figures[name] for name in COPIED}}
        yield {**row, "predicted_to_counted": figures["predicted_gflop"] / figures["counted_gflop"]}


def _run(settings: list[str]) -> dict[str, Any]:
    """Figures of one run of the step benchmark."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "step.json"
        command = [sys.executable, str(PROGRAM), *settings, f"out={out}"]
        finished = subprocess.run(command, capture_output=True, text=True)
        if finished.returncode:
            raise UserError(f"{' '.join(settings)}: {(finished.stderr.strip().splitlines() or ['no message'])[-1]}")
        figures: dict[str, Any] = json.loads(out.read_text())["rows"][0]
        return figures
