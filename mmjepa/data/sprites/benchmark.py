"""Make the whole benchmark: its six splits as shards with manifests, over several processes."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import MISSING
from tqdm import tqdm

from mmjepa.data.manifest import Manifest, Provenance, ShardEntry, finish_split, is_finished, shard_name, write_shard
from mmjepa.data.sprites.draw import draw_scene
from mmjepa.data.sprites.encoding import EncodingOptions
from mmjepa.data.sprites.options import SceneOptions
from mmjepa.data.sprites.samples import make_sample
from mmjepa.errors import UserError, making

_LOG = logging.getLogger(__name__)

# Part of the provenance: raise it with every change that alters drawn scenes, pixels or captions.
GENERATOR_VERSION = 4
_PACKAGES = ("av", "numpy", "pillow", "webdataset")


@dataclass
class SplitSizes:
    """Number of samples per split; 0 leaves a split out."""

    appearance_train: int = MISSING
    appearance_test: int = MISSING
    motion_train: int = MISSING
    motion_test: int = MISSING
    relations_train: int = MISSING
    relations_test: int = MISSING


@dataclass
class SpritesConfig:
    """Configuration of ``data_prep/sprites.py``."""

    out: str = MISSING  # folder of the data set; its splits become sub-folders
    seed: int = 0
    processes: int = 1
    samples_per_shard: int = 250
    captions_per_sample: int = 5
    contact_sheets: bool = False  # also write out/contact-sheets/<split>.png
    sizes: SplitSizes = field(default_factory=SplitSizes)
    scene: SceneOptions = field(default_factory=SceneOptions)
    encoding: EncodingOptions = field(default_factory=EncodingOptions)

    def __post_init__(self) -> None:
        """Refuse counts that make no data set."""
        if Path(self.out).exists() and not Path(self.out).is_dir():
            raise UserError(f"out={self.out}: is a file, not a folder")
        if self.processes < 1 or self.samples_per_shard < 1:
            raise UserError("processes and samples_per_shard must be at least 1")
        if not 1 <= self.captions_per_sample <= 20:
            raise UserError(f"captions_per_sample={self.captions_per_sample}: must lie in 1..20")
        if self.seed < 0:
            raise UserError(f"seed={self.seed}: must not be negative")
        sizes = asdict(self.sizes).values()
        if min(sizes) < 0 or max(sizes) == 0:
            raise UserError("sizes: must not be negative, and at least one must be positive")


@dataclass(frozen=True)
class _Shard:
    """One unit of work: samples ``start`` to ``stop`` of a split."""

    path: Path
    kind: str
    split: str
    start: int
    stop: int
    seed: int
    captions: int
    scene: SceneOptions
    encoding: EncodingOptions


@dataclass(frozen=True)
class _Split:
    """A split that is still to be made."""

    folder: Path
    manifest: Manifest  # without its shards
    shards: list[_Shard]


def make_benchmark(config: SpritesConfig) -> list[Path]:
    """Write all splits of the benchmark and return their folders.

    The data depend on the seed, sizes, scene and encoding options only, not on the number of processes. A split that
    is already finished with the same settings is left alone; raises :class:`UserError` if its settings differ.
    """
    folders, todo = [], []
    for name, samples in asdict(config.sizes).items():
        if samples > 0:
            folder = Path(config.out) / name.replace("_", "-")
            folders.append(folder)
            manifest = _manifest(config, folder.name, samples)
            if not _is_up_to_date(folder, manifest):
                todo.append(_Split(folder, manifest, _shards(config, folder, samples)))
    with making("out", config.out):
        _make_splits(todo, config.processes)
    return folders


def _manifest(config: SpritesConfig, split: str, samples: int) -> Manifest:
    """The manifest of a split, still without shards."""
    arguments: dict[str, Any] = {"generator_version": GENERATOR_VERSION, "split": split, "samples": samples}
    arguments |= {"samples_per_shard": config.samples_per_shard, "captions_per_sample": config.captions_per_sample}
    arguments |= {"scene": asdict(config.scene), "encoding": asdict(config.encoding)}
    provenance = Provenance.collect("data_prep/sprites.py", arguments, config.seed, _PACKAGES)
    return Manifest("sprites", split, "image" if split.startswith("appearance") else "video", (), provenance)


def _is_up_to_date(folder: Path, wanted: Manifest) -> bool:
    if not is_finished(folder):
        return False
    present = Manifest.read(folder)
    if not present.provenance.same_content(wanted.provenance):
        raise UserError(f"{folder}: already holds data made with other settings; delete it or give another out=...")
    for shard in present.shards:
        path = folder / shard.name
        if not path.is_file() or path.stat().st_size != shard.bytes:
            raise UserError(f"{path}: missing or not of the size in the manifest; delete {folder} to make it anew")
    _LOG.info("%s: already complete with these settings, left alone", folder)
    return True


def _shards(config: SpritesConfig, folder: Path, samples: int) -> list[_Shard]:
    kind, split = folder.name.split("-")
    return [
        _Shard(
            path=folder / shard_name(number),
            kind=kind,
            split=split,
            start=start,
            stop=min(start + config.samples_per_shard, samples),
            seed=config.seed,
            captions=config.captions_per_sample,
            scene=config.scene,
            encoding=config.encoding,
        )
        for number, start in enumerate(range(0, samples, config.samples_per_shard))
    ]


def _make_splits(splits: list[_Split], processes: int) -> None:
    """Make all shards of all splits in one pool; a split's manifest is written as soon as its last shard is there."""
    entries = _run([shard for split in splits for shard in split.shards], processes)
    total = sum(shard.stop - shard.start for split in splits for shard in split.shards)
    with tqdm(total=total, unit="sample", disable=not splits) as progress:
        for split in splits:
            progress.set_description(split.folder.name)
            made = []
            for entry in itertools.islice(entries, len(split.shards)):
                made.append(entry)
                progress.update(entry.samples)
            finish_split(split.folder, replace(split.manifest, shards=tuple(made)))


def _run(shards: list[_Shard], processes: int) -> Iterator[ShardEntry]:
    """Make shards, in order; in this process if one is enough."""
    workers = min(processes, len(shards))
    if workers <= 1:
        yield from map(_make_shard, shards)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_make_shard, shards)


def _make_shard(shard: _Shard) -> ShardEntry:
    shard.path.parent.mkdir(parents=True, exist_ok=True)
    scenes = (
        draw_scene(shard.kind, index, shard.split, shard.seed, shard.scene) for index in range(shard.start, shard.stop)
    )
    return write_shard(shard.path, (make_sample(scene, shard.captions, shard.encoding) for scene in scenes))
