"""Clips as a frozen encoder declares it wants them: the data of the evaluation programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from mmjepa.data.evaluation_set import EvaluationSet
from mmjepa.errors import UserError
from mmjepa.frozen.protocol import FrozenSpec


@dataclass
class ClipsConfig:
    """How evaluation reads clips: ``batch`` at a time, decoded by ``workers`` processes (0: in the program itself).

    Split folders are relative to ``root`` unless absolute. ``limit`` takes a fixed random part of so many clips.
    """

    root: str = MISSING
    batch: int = 32
    workers: int = 0
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.batch < 1 or self.workers < 0 or (self.limit is not None and self.limit < 1):
            raise UserError("data.batch and data.limit must be at least 1, data.workers at least 0")

    def open(self, splits: Sequence[str], spec: FrozenSpec) -> EvaluationSet:
        """The clips of ``splits`` at the geometry and pixel normalisation of ``spec``."""
        return open_clips([Path(self.root) / split for split in splits], spec, self.batch, self.workers, self.limit)


def open_clips(
    paths: Sequence[Path], spec: FrozenSpec, batch: int, workers: int, limit: int | None = None
) -> EvaluationSet:
    """Every clip of the splits at ``paths`` once, in file order, as ``spec`` declares it. Raises UserError."""
    return EvaluationSet(
        paths,
        frames=spec.frames,
        resolution=spec.resolution,
        mean=spec.mean,
        std=spec.std,
        batch=batch,
        workers=workers,
        limit=limit,
    )
