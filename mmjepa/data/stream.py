"""The endless stream of training batches.

All randomness is keyed by (seed, position), so nothing here holds state: what a step's batch holds depends on the
configuration, the seed, the global batch size and the step, not on workers, ranks or what was read before.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from torch.utils.data import Sampler

from mmjepa.data.augmentation import Normalise, TrainTransform
from mmjepa.data.clips import random_window
from mmjepa.data.config import DataConfig
from mmjepa.data.order import BatchPlan, OrderedSource, Purpose, SampleOrder, keyed_generator
from mmjepa.data.quarantine import Quarantine
from mmjepa.data.remote_split import open_split
from mmjepa.data.samples import Clip, ClipBatch, Failure, UnusableSample
from mmjepa.data.shards import ShardedSplit
from mmjepa.data.workers import DecodingBatches, ordered_batches
from mmjepa.errors import UserError


@dataclass(frozen=True)
class _Exhausted:
    """What a worker returns instead of a batch when a source yields only unusable samples: the parent raises it."""

    source: str
    failures: tuple[Failure, ...]


class TrainStream:
    """Endless, deterministic training batches of one rank.

    Every rank of ``world`` gets its rows of the same global batches of ``global_batch`` clips. Iteration begins at
    ``start_step`` (exact resume: give the number of batches taken so far) and goes on from :attr:`step` when iterated
    again. Unusable samples are replaced, listed and counted by ``quarantine``.

    Raises UserError if a source cannot be opened, or the batch does not divide; while iterating, if a source gives
    ``config.max_failures_in_row`` unusable samples in a row.
    """

    def __init__(
        self,
        config: DataConfig,
        *,
        seed: int,
        global_batch: int,
        rank: int = 0,
        world: int = 1,
        start_step: int = 0,
        quarantine: Quarantine | None = None,
    ) -> None:
        config.check_batch(global_batch, world)
        names = sorted(config.sources)
        self._config = config
        self._splits = [open_split(config.source_path(name)) for name in names]
        self.quarantine = quarantine or Quarantine()
        for split in self._splits:
            self.quarantine.record(split.damage)
        sources = [
            OrderedSource(name, split.kind, config.sources[name].weight, split.shard_sizes)
            for name, split in zip(names, self._splits, strict=True)
        ]
        videos = global_batch // config.clips_per_decode
        self._order = SampleOrder(sources, seed, videos)
        self._rows = (rank * videos // world, (rank + 1) * videos // world)
        self._dataset = _TrainBatches(config, names, self._splits, seed)
        self.step = start_step
        """The step whose batch comes next."""
        self.clips = 0
        """Clips delivered by this object."""
        self.wait_seconds = 0.0
        """Time spent waiting for batches, the first one included."""

    @property
    def failures(self) -> int:
        """Unusable samples and damaged shards met so far on this rank."""
        return self.quarantine.count

    @property
    def samples(self) -> int:
        """Samples of all sources together, as their manifests count them."""
        return sum(len(split) for split in self._splits)

    def __iter__(self) -> Iterator[ClipBatch]:
        plans = _Plans(self._order, self.step, self._rows)
        batches = ordered_batches(self._dataset, plans, self._config.workers, self._config.prefetch)
        try:
            while True:
                began = time.perf_counter()
                batch = next(batches)
                self.wait_seconds += time.perf_counter() - began
                self.quarantine.record(batch.failures)
                if isinstance(batch, _Exhausted):
                    raise UserError(self._exhaustion_message(batch))
                self.step += 1
                self.clips += len(batch)
                yield batch
        finally:
            batches.close()  # ends the workers now

    def _exhaustion_message(self, exhausted: _Exhausted) -> str:
        last = exhausted.failures[-1]
        return (
            f"data source {exhausted.source}: {self._config.max_failures_in_row} unusable samples in a row, "
            f"the last one {last.key or 'without a key'} in {last.shard} ({last.reason})"
        )


class _Plans(Sampler[BatchPlan]):
    """One rank's rows of every global batch from ``step`` on, without end."""

    def __init__(self, order: SampleOrder, step: int, rows: tuple[int, int]) -> None:
        self._order, self._step, self._rows = order, step, rows

    def __iter__(self) -> Iterator[BatchPlan]:
        step = self._step
        while True:
            yield self._order.batch(step).rows(*self._rows)
            step += 1


class _TrainBatches(DecodingBatches):
    """Plan of a batch -> the batch. Runs in worker processes."""

    def __init__(self, config: DataConfig, names: Sequence[str], splits: Sequence[ShardedSplit], seed: int) -> None:
        super().__init__(splits, config.decoder)
        self._config, self._names, self._seed = config, names, seed
        crop = config.augmentation
        self._transform = TrainTransform(config.resolution, crop.area, crop.aspect, crop.flip)
        self._normalise = Normalise(tuple(config.mean), tuple(config.std))

    def __getitem__(self, plan: BatchPlan) -> ClipBatch | _Exhausted:
        clips: list[Clip] = []
        failures: list[Failure] = []
        for source, sample, position in zip(plan.sources, plan.samples, plan.positions, strict=True):
            decoded = self._row(int(source), int(sample), int(position), failures)
            if decoded is None:
                return _Exhausted(self._names[source], tuple(failures))
            clips += decoded
        return ClipBatch.collate(clips, self._normalise, failures)

    def _row(self, source: int, sample: int, position: int, failures: list[Failure]) -> list[Clip] | None:
        """Clips of the row at ``position``, of a replacement if its sample is unusable; None if those are too."""
        split = self.splits[source]
        replacements = keyed_generator(self._seed, Purpose.REPLACEMENT, position, 0)
        for _ in range(self._config.max_failures_in_row):
            try:
                return self._clips(source, sample, position)
            except UnusableSample as error:
                failures.append(split.failure(sample, str(error)))
                sample = int(replacements.integers(len(split)))
        return None

    def _clips(self, source: int, sample: int, position: int) -> list[Clip]:
        frames = 1 if self.splits[source].kind == "image" else self._config.frames
        generators = [
            keyed_generator(self._seed, Purpose.CLIP, position, clip) for clip in range(self._config.clips_per_decode)
        ]
        return self.cut(
            source,
            sample,
            choose=[partial(random_window, frames=frames, stride=self._config.stride, generator=g) for g in generators],
            transform=[partial(self._transform, generator=g) for g in generators],
        )
