"""Configuration of the training data: which sources, which frames, which augmentation, how many workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmjepa.data.decoding import READERS
from mmjepa.data.manifest import Manifest
from mmjepa.data.remote import is_url, join, mirror
from mmjepa.errors import UserError


@dataclass
class SourceConfig:
    """One source of a mixture: a split (folder of shards with a manifest) and its weight, in any unit."""

    path: str
    weight: float

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise UserError(
                f"data source {self.path}: weight must be positive, not {self.weight}; leave the source out instead"
            )


@dataclass
class AugmentationConfig:
    """Random resized crop and flip; see :class:`mmjepa.data.augmentation.TrainTransform`."""

    area: list[float]
    aspect: list[float]
    flip: float

    def __post_init__(self) -> None:
        if len(self.area) != 2 or not 0 < self.area[0] <= self.area[1] <= 1:
            raise UserError(f"data.augmentation.area must be [low, high] with 0 < low <= high <= 1, not {self.area}")
        if len(self.aspect) != 2 or not 0 < self.aspect[0] <= self.aspect[1]:
            raise UserError(f"data.augmentation.aspect must be [low, high] with 0 < low <= high, not {self.aspect}")
        if not 0 <= self.flip <= 1:
            raise UserError(f"data.augmentation.flip must be a probability, not {self.flip}")


@dataclass
class DataConfig:
    """Training data. ``sources`` by name; their paths are relative to ``root`` unless absolute.

    ``root`` or a path may be a URL: see :mod:`mmjepa.data.remote`.
    """

    root: str
    sources: dict[str, SourceConfig]
    frames: int
    """Frames of a clip; a still image is one frame whatever this says."""
    stride: int
    """A clip takes every ``stride``-th frame of the video."""
    clips_per_decode: int
    """Clips cut from each opened video; they follow one another in a batch and count as that many rows of it."""
    resolution: int
    mean: list[float]
    std: list[float]
    augmentation: AugmentationConfig
    workers: int
    """Processes that decode, per rank; 0 decodes in the training process."""
    prefetch: int
    """Batches that each worker keeps ready."""
    max_failures_in_row: int
    """A row of a batch whose sample is unusable takes another sample of the same source, this often at most."""
    decoder: str = "pyav"
    """What decodes videos: "pyav", or "decord" with PyAV for the files that decord fails at (docs/data.md)."""
    cache: str = "~/.cache/mmjepa"
    """Folder for shards of sources that are URLs; ranks and runs on a machine may share it."""
    cache_gigabytes: float = 200.0
    """How much that folder may hold; shards that were not opened for longest go first."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise UserError("data.sources is empty: name at least one split")
        for name in ("frames", "stride", "clips_per_decode", "resolution", "prefetch", "max_failures_in_row"):
            if getattr(self, name) < 1:
                raise UserError(f"data.{name} must be at least 1, not {getattr(self, name)}")
        if self.decoder not in READERS:
            raise UserError(f"data.decoder must be {' or '.join(READERS)}, not {self.decoder}")
        if not self.cache_gigabytes > 0:
            raise UserError(f"data.cache_gigabytes must be positive, not {self.cache_gigabytes}")
        if self.workers < 0:
            raise UserError(f"data.workers must not be negative, not {self.workers}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise UserError("data.mean and data.std need three numbers each, std positive")

    def check_sources(self) -> None:
        """Raise UserError if a source's folder or manifest is missing: before anything is built or written."""
        for name in self.sources:
            path = self.source_path(name)
            if not path.is_dir():
                raise UserError(f"no data at {path}: there is no such folder (a split is a folder of shards)")
            Manifest.read(path)

    def check_batch(self, clips: int, ranks: int) -> None:
        """Raise UserError if a global batch of ``clips`` does not divide into whole decoded videos for every rank."""
        if clips % (ranks * self.clips_per_decode):
            raise UserError(
                f"a global batch of {clips} clips does not divide into {ranks} ranks "
                f"with {self.clips_per_decode} clips per decoded video"
            )

    def source_path(self, name: str) -> Path:
        """The folder of source ``name``; for a URL its mirror, which holds the manifest, newly fetched. UserError."""
        path = self.sources[name].path
        if not (is_url(self.root) or is_url(path)):
            return Path(self.root) / path
        return mirror(join(self.root, path), Path(self.cache).expanduser(), int(self.cache_gigabytes * 1e9))
