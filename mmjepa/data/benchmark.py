"""How fast clips come from shards, beside two readers of the same videos as loose files.

* ``raw_decord``: processes that open a file, decode the frames of one clip, and throw them away. Nothing is cropped,
  batched or handed over: what decoding alone allows.
* ``map_style``: torch's DataLoader over a map-style data set that opens a path with decord, decodes one clip, crops and
  normalises it in float32, as video JEPA code does.
"""

from __future__ import annotations

import importlib.metadata
import math
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import MISSING
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from mmjepa.data.clips import hold_last, random_window
from mmjepa.data.config import AugmentationConfig, DataConfig, SourceConfig
from mmjepa.data.manifest import source_commit
from mmjepa.data.shards import ShardedSplit
from mmjepa.data.stream import TrainStream
from mmjepa.errors import UserError

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
AREA, ASPECT = [0.3, 1.0], [0.75, 1.35]
PREFETCH = 2
PACKAGES = ("torch", "av", "decord", "webdataset")


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
            augmentation=AugmentationConfig(AREA, ASPECT, 0.5),
            workers=self.workers,
            prefetch=PREFETCH,
            max_failures_in_row=100,
        )
        return TrainStream(config, seed=0, global_batch=self.batch)


def measure_data(config: DataBenchmarkConfig) -> dict[str, Any]:
    """Clips a second of each reader (every round and the median), ratios of medians by round, and memory in MB."""
    several = f"shards_{config.clips_per_decode}_per_decode"
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mmjepa-benchmark-"))
        paths = _loose_files(Path(config.split), Path(folder))
        readers: dict[str, Callable[[], float]] = {
            "raw_decord": _raw_decord(config, paths, stack),
            "map_style": partial(_rate, config, _endless(_map_style(config, paths))),
            "shards_1_per_decode": partial(_rate, config, map(len, config.stream(1))),
            several: partial(_rate, config, map(len, config.stream(config.clips_per_decode))),
        }
        rates: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(config.rounds):
            for name, reader in readers.items():
                rates[name].append(reader())
        del readers  # ends the workers
    ratios = {
        f"{ours}/{theirs}": statistics.median(a / b for a, b in zip(rates[ours], rates[theirs], strict=True))
        for ours in ("shards_1_per_decode", several)
        for theirs in ("raw_decord", "map_style")
    }
    return {
        "clips_per_second": {name: statistics.median(values) for name, values in rates.items()},
        "ratios": ratios,
        "rounds": rates,
        "memory": _memory(config),
        "load": os.getloadavg(),
        "machine": {"cpus": os.cpu_count(), "processor": platform.processor() or platform.machine()},
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
        "commit": source_commit(),
        "config": {name: value for name, value in vars(config).items() if name not in ("split", "out")},
    }


def _loose_files(split: Path, folder: Path) -> list[str]:
    """The videos of a split as files of their own. Raises UserError if the split holds stills."""
    data = ShardedSplit(split)
    if data.kind != "video":
        raise UserError(f"{split}: holds stills; this measures videos")
    paths = []
    for index in range(len(data)):
        sample = data.read(index)
        path = folder / f"{sample.key}.{sample.suffix}"
        path.write_bytes(sample.media)
        paths.append(str(path))
    return paths


def _rate(config: DataBenchmarkConfig, batches: Iterator[int]) -> float:
    """Clips a second, after what the workers had ready."""
    for _ in range(config.workers * PREFETCH + 1):
        next(batches)
    began, clips = time.perf_counter(), 0
    while clips < config.clips:
        clips += next(batches)
    return clips / (time.perf_counter() - began)


def _decord_frames(path: str, frames: int, stride: int, generator: np.random.Generator) -> np.ndarray:
    import decord  # not with the library: its codecs must come after PyAV's, and only this module needs it

    reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
    wanted, _ = hold_last(random_window(len(reader), frames, stride, generator), len(reader))
    return reader.get_batch(wanted).asnumpy()


def _decode_only(frames: int, stride: int, job: tuple[str, int]) -> None:
    _decord_frames(job[0], frames, stride, np.random.default_rng(job[1]))


def _raw_decord(config: DataBenchmarkConfig, paths: Sequence[str], stack: ExitStack) -> Callable[[], float]:
    pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(config.workers))
    generator = np.random.default_rng(0)

    def measure() -> float:
        jobs = [(paths[i], int(i)) for i in generator.integers(len(paths), size=config.clips)]
        pool.map(partial(_decode_only, config.frames, config.stride), jobs[: config.workers])
        began = time.perf_counter()
        for _ in pool.imap_unordered(partial(_decode_only, config.frames, config.stride), jobs, chunksize=4):
            pass
        return config.clips / (time.perf_counter() - began)

    return measure


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


def _endless(loader: DataLoader) -> Iterator[int]:
    while True:
        yield from map(len, loader)


def _memory(config: DataBenchmarkConfig) -> dict[str, float]:
    """Memory of this process and its workers (MB): medians over the second and over the last quarter of a run."""
    samples: list[float] = []
    clips = 0
    for taken in map(len, config.stream(config.clips_per_decode)):
        clips += taken
        samples.append(sum(map(_megabytes, [os.getpid(), *(p.pid for p in multiprocessing.active_children())])))
        if clips >= config.memory_clips:
            break
    quarter = max(len(samples) // 4, 1)
    second, last = statistics.median(samples[quarter : 2 * quarter]), statistics.median(samples[-quarter:])
    return {"clips": clips, "second_quarter": second, "last_quarter": last, "growth": last / second - 1}


def _megabytes(process: int | None) -> float:
    """Memory of a process; what processes share counts once over all of them. Linux only."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1e3
