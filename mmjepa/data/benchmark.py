"""How fast clips come from shards, beside two readers of the same videos as loose files.

* ``raw_decord``: processes that open a file, decode the frames of one clip, and throw them away. Nothing is cropped,
  batched or handed over: what decoding alone allows.
* ``map_style``: torch's DataLoader over a map-style data set that opens a path with decord, decodes one clip, crops and
  normalises it in float32, as video JEPA code does.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from omegaconf import MISSING
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from mmjepa.data.clips import hold_last, random_window
from mmjepa.data.config import AugmentationConfig, DataConfig, SourceConfig
from mmjepa.data.measuring import Place, megabytes, serve_reader
from mmjepa.data.samples import ClipBatch
from mmjepa.data.shards import ShardedSplit
from mmjepa.data.stream import TrainStream
from mmjepa.errors import UserError

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
AREA, ASPECT = (0.3, 1.0), (0.75, 1.35)
PREFETCH = 2
HEAP = "MALLOC_MMAP_THRESHOLD_"


@dataclass
class DataBenchmarkConfig:
    """``clips`` of each reader per round; ``memory_clips`` from shards, for the growth of memory."""

    split: str = MISSING
    frames: int = 16
    stride: int = 4
    resolution: int = 224
    workers: int = 2
    batch: int = 16
    clips_per_decode: int = 4
    clips: int = 320
    rounds: int = 7
    memory_clips: int = 5000
    out: str | None = None

    def __post_init__(self) -> None:
        for name in (
            "frames",
            "stride",
            "resolution",
            "workers",
            "batch",
            "clips_per_decode",
            "clips",
            "rounds",
            "memory_clips",
        ):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.batch % self.clips_per_decode:
            raise UserError(f"batch={self.batch} must be a multiple of clips_per_decode={self.clips_per_decode}")

    def stream(self, clips_per_decode: int) -> TrainStream:
        """Clips from the shards, cut so many from each decoded video."""
        path = Path(self.split).absolute()
        config = DataConfig(
            root="",
            sources={"videos": SourceConfig(str(path), 1.0)},
            frames=self.frames,
            stride=self.stride,
            clips_per_decode=clips_per_decode,
            resolution=self.resolution,
            mean=MEAN,
            std=STD,
            augmentation=AugmentationConfig(list(AREA), list(ASPECT), 0.5),
            workers=self.workers,
            prefetch=PREFETCH,
            max_failures_in_row=100,
        )
        return TrainStream(config, seed=0, global_batch=self.batch)


def _serve_memory(config: DataBenchmarkConfig, connection: Connection) -> None:
    while True:
        connection.recv()
        connection.send(_memory(config))


class DataSpeed(NamedTuple):
    """``readers``: clips a second of each, by the clock and by processor time, medians and every round.

    ``ratios``: of ours to theirs by kind of time, medians of what the rounds gave. ``memory``: see :func:`_memory`.
    """

    readers: list[dict[str, Any]]
    ratios: dict[str, dict[str, float]]
    memory: dict[str, float]


def measure_data(config: DataBenchmarkConfig) -> DataSpeed:
    """Time every reader in turns, then watch memory."""
    several = f"shards_{config.clips_per_decode}_per_decode"
    rates: dict[str, dict[str, list[float]]] = {"clock": {}, "processor": {}}
    ready = config.batch * (config.workers * PREFETCH + 1)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mmjepa-benchmark-"))
        paths = _loose_files(Path(config.split), Path(folder))
        starts = {
            "raw_decord": partial(_raw_decord, config, paths),
            "map_style": partial(_map_style_clips, config, paths),
            "shards_1_per_decode": partial(_shard_clips, config, 1),
            several: partial(_shard_clips, config, config.clips_per_decode),
        }
        readers = {name: stack.enter_context(Place(partial(serve_reader, start))) for name, start in starts.items()}
        for reader in readers.values():
            reader.ask(0, 1)  # all have begun before any is measured
        for _ in range(config.rounds):
            for name, reader in readers.items():
                for kind, rate in zip(rates, reader.ask(ready, config.clips), strict=True):
                    rates[kind].setdefault(name, []).append(rate)
    with _without_growing_heap(), Place(partial(_serve_memory, config)) as place:
        memory = place.ask()
    ratios = {
        f"{ours}/{theirs}": {
            kind: statistics.median(a / b for a, b in zip(by[ours], by[theirs], strict=True))
            for kind, by in rates.items()
        }
        for ours in ("shards_1_per_decode", several)
        for theirs in ("raw_decord", "map_style")
    }
    rows = [
        {"reader": name}
        | {kind: statistics.median(by[name]) for kind, by in rates.items()}
        | {f"{kind}_rounds": by[name] for kind, by in rates.items()}
        for name in rates["clock"]
    ]
    return DataSpeed(rows, ratios, memory)


@contextlib.contextmanager
def _without_growing_heap() -> Iterator[None]:
    """Processes that are started inside give large blocks back when they are freed.

    By default glibc keeps those below 32 MB, small batches among them, and with them a heap that grows to several times
    what is in use: memory would say more about it than about what is held.
    """
    before = os.environ.get(HEAP)
    os.environ[HEAP] = "1000000"
    try:
        yield
    finally:
        del os.environ[HEAP]
        os.environ |= {} if before is None else {HEAP: before}


def _loose_files(split: Path, folder: Path) -> list[str]:
    """The videos of a split as files of their own. Raises UserError if the split holds stills."""
    data = ShardedSplit(split)
    if data.kind != "video":
        raise UserError(f"{split}: holds stills; this measures videos")
    paths = []
    for index in data.present():
        sample = data.read(index)
        path = folder / f"{sample.key}.{sample.suffix}"
        path.write_bytes(sample.media)
        paths.append(str(path))
    return paths


def _counted(stream: TrainStream) -> Iterator[int]:
    """Clips of each batch, once their normalised pixels are there, as a training step needs them."""
    # By map, as _endless does: no batch is held while the next one is waited for. Else small objects settle in the room
    # that a batch leaves in the heap, and each next one takes fresh memory.
    yield from map(_clips, stream)


def _clips(batch: ClipBatch) -> int:
    return len(batch.pixels)


def _taking(batches: Iterator[int]) -> Callable[[int], int]:
    def read(clips: int) -> int:
        count = 0
        while count < clips:
            count += next(batches)
        return count

    return read


def _decord_frames(path: str, frames: int, stride: int, generator: np.random.Generator) -> np.ndarray:
    import decord  # not with the library: its codecs must come after PyAV's, and only this module needs it

    reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
    wanted, _ = hold_last(random_window(len(reader), frames, stride, generator), len(reader))
    return reader.get_batch(wanted).asnumpy()


def _decode_only(frames: int, stride: int, job: tuple[str, int]) -> None:
    _decord_frames(job[0], frames, stride, np.random.default_rng(job[1]))


def _raw_decord(config: DataBenchmarkConfig, paths: Sequence[str]) -> Callable[[int], int]:
    pool = multiprocessing.get_context("spawn").Pool(config.workers)
    generator = np.random.default_rng(0)
    decode = partial(_decode_only, config.frames, config.stride)

    def read(clips: int) -> int:
        jobs = [(paths[i], int(i)) for i in generator.integers(len(paths), size=clips)]
        return sum(1 for _ in pool.imap_unordered(decode, jobs, chunksize=4))

    return read


class _MapStyle(Dataset):
    """One clip of each path: (3, T, H, W) float32."""

    def __init__(self, config: DataBenchmarkConfig, paths: Sequence[str]) -> None:
        self._config, self._paths = config, paths
        self._mean, self._std = torch.tensor(MEAN).view(3, 1, 1, 1), torch.tensor(STD).view(3, 1, 1, 1)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        generator = np.random.default_rng()
        frames = _decord_frames(self._paths[index], self._config.frames, self._config.stride, generator)
        video = torch.from_numpy(frames).permute(3, 0, 1, 2).float()
        height, width = video.shape[2:]
        area = height * width * generator.uniform(*AREA)
        aspect = math.exp(generator.uniform(*np.log(ASPECT)))
        rows, columns = min(height, round(math.sqrt(area / aspect))), min(width, round(math.sqrt(area * aspect)))
        top, left = generator.integers(height - rows + 1), generator.integers(width - columns + 1)
        side = self._config.resolution
        video = F.interpolate(
            video[:, :, top : top + rows, left : left + columns],
            size=(side, side),
            mode="bilinear",
            align_corners=False,
        )
        if generator.random() < 0.5:
            video = video.flip(-1)
        return (video / 255 - self._mean) / self._std


def _map_style(config: DataBenchmarkConfig, paths: Sequence[str]) -> DataLoader:
    return DataLoader(
        _MapStyle(config, paths),
        batch_size=config.batch,
        shuffle=True,
        drop_last=len(paths) >= config.batch,
        num_workers=config.workers,
        prefetch_factor=PREFETCH,
        persistent_workers=True,
        multiprocessing_context="fork",
    )


def _map_style_clips(config: DataBenchmarkConfig, paths: Sequence[str]) -> Callable[[int], int]:
    return _taking(_endless(_map_style(config, paths)))


def _shard_clips(config: DataBenchmarkConfig, clips_per_decode: int) -> Callable[[int], int]:
    return _taking(_counted(config.stream(clips_per_decode)))


def _endless(loader: DataLoader) -> Iterator[int]:
    while True:
        yield from map(len, loader)


def _memory(config: DataBenchmarkConfig) -> dict[str, float]:
    """Memory of this process and its workers (MB): medians over the second and over the last quarter of a run."""
    samples: list[float] = []
    clips = 0
    for taken in _counted(config.stream(config.clips_per_decode)):
        clips += taken
        samples.append(sum(map(megabytes, [os.getpid(), *(p.pid for p in multiprocessing.active_children())])))
        if clips >= config.memory_clips:
            break
    quarter = max(len(samples) // 4, 1)
    second, last = statistics.median(samples[quarter : 2 * quarter]), statistics.median(samples[-quarter:])
    return {"clips": clips, "second_quarter": second, "last_quarter": last, "growth": last / second - 1}
