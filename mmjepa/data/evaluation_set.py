"""Clips for evaluation: every sample once, in file order, without randomness."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmjepa.data.augmentation import EvaluationTransform, Normalise
from mmjepa.data.clips import spread_evenly
from mmjepa.data.quarantine import Quarantine
from mmjepa.data.samples import Clip, ClipBatch, Failure, UnusableSample
from mmjepa.data.shards import ShardedSplit
from mmjepa.data.workers import DecodingBatches, ordered_batches
from mmjepa.errors import UserError

PREFETCH = 2
"""Batches that each worker keeps ready."""


class EvaluationSet:
    """The clips of one or more splits of one kind, once, in file order, frames spread evenly over each video.

    Samples that cannot be used are left out, listed and counted by ``quarantine``. ``limit`` takes a fixed random
    subset of that many samples. Raises UserError if a split cannot be opened, if kinds differ, if two samples have the
    same key, or if nothing decodes.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        frames: int,
        resolution: int,
        mean: Sequence[float],
        std: Sequence[float],
        batch: int,
        workers: int,
        limit: int | None = None,
        quarantine: Quarantine | None = None,
    ) -> None:
        self._splits = [ShardedSplit(Path(path)) for path in paths]
        kinds = {split.kind for split in self._splits}
        if len(kinds) != 1:
            raise UserError(f"evaluation needs splits of one kind, not {' and '.join(sorted(kinds)) or 'none'}")
        self.kind = kinds.pop()
        self.quarantine = quarantine or Quarantine()
        for split in self._splits:
            self.quarantine.record(split.damage)
        self._rows = np.array([(s, i) for s, split in enumerate(self._splits) for i in split.present()])
        if limit is not None and limit < len(self._rows):
            subset = np.random.default_rng(0).choice(len(self._rows), limit, replace=False)
            self._rows = self._rows[np.sort(subset)]
        self.keys = [self._splits[s].key(i) for s, i in self._rows]
        if len(set(self.keys)) < len(self.keys):
            twice = next(key for key, times in Counter(self.keys).items() if times > 1)
            raise UserError(f"{self}: several samples have the key {twice}; frame loss is drawn by key")
        self._dataset = _EvaluationBatches(
            self._splits,
            1 if self.kind == "image" else frames,
            EvaluationTransform(resolution),
            Normalise(tuple(mean), tuple(std)),
        )
        self._batch, self._workers = batch, workers

    def __len__(self) -> int:
        """Samples, those included that will turn out unusable."""
        return len(self._rows)

    def __str__(self) -> str:
        return ", ".join(str(split.path) for split in self._splits)

    def require(self, field: str) -> None:
        """Raise UserError if a sample has no ``field`` or an empty one, before any encoding."""
        lacking = [key for key, meta in self._metas() if meta.get(field) in (None, [], "")]
        if lacking:
            raise UserError(f"{self}: {len(lacking)} of {len(self)} samples have no {field}, e.g. {lacking[0]}")

    def class_names(self) -> dict[int, str]:
        """Name of each class by its number.

        Raises UserError if a label is no number from 0, or if a class has two names.
        """
        names: dict[int, str] = {}
        for key, meta in self._metas():
            label, name = meta.get("label"), meta.get("label_name", "")
            if not isinstance(label, int) or label < 0:
                raise UserError(f"{self}: the label of {key} is {label!r}, not a number from 0")
            if names.setdefault(label, name) != name:
                raise UserError(f"{self}: label {label} is {names[label]!r} and, of {key}, {name!r}")
        return names

    def _metas(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Key and JSON of every sample, nothing decoded. Samples without valid JSON do not count: they are unusable."""
        for key, (split, sample) in zip(self.keys, self._rows, strict=True):
            try:
                meta = self._splits[split].meta(sample)
            except UnusableSample:
                continue
            yield key, meta

    @property
    def fingerprint(self) -> str:
        """Identifies the data (hex): the manifests' fingerprints and the samples taken, not how they are decoded."""
        digest = hashlib.sha256(self._rows.tobytes())
        for split in self._splits:
            digest.update(split.manifest.fingerprint.encode())
        return digest.hexdigest()

    def __iter__(self) -> Iterator[ClipBatch]:
        groups = [self._rows[start : start + self._batch] for start in range(0, len(self._rows), self._batch)]
        clips = 0
        for batch, failures in ordered_batches(self._dataset, groups, self._workers, PREFETCH):
            self.quarantine.record(failures)
            if batch is not None:
                clips += len(batch)
                yield batch
        if clips == 0:
            raise UserError(f"none of the {len(self)} samples of {self} could be decoded")


class _EvaluationBatches(DecodingBatches):
    """(split, sample) pairs of a batch -> the batch (None if all its samples fail), and failures. Runs in workers."""

    def __init__(
        self, splits: Sequence[ShardedSplit], frames: int, transform: EvaluationTransform, normalise: Normalise
    ) -> None:
        super().__init__(splits)
        self._frames, self._transform, self._normalise = frames, transform, normalise

    def __getitem__(self, rows: np.ndarray) -> tuple[ClipBatch | None, tuple[Failure, ...]]:
        clips: list[Clip] = []
        failures: list[Failure] = []
        for split, sample in rows.tolist():
            try:
                clips += self.cut(split, sample, [partial(spread_evenly, frames=self._frames)], [self._transform])
            except UnusableSample as error:
                failures.append(self.splits[split].failure(sample, str(error)))
        return (ClipBatch.collate(clips, self._normalise, failures) if clips else None), tuple(failures)
