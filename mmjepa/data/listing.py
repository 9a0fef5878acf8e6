"""Loose files to shards: a tree of class folders, or a CSV that names files, labels and captions."""

from __future__ import annotations

import csv
import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING
from tqdm import tqdm

from mmjepa.data.manifest import Provenance, ShardSetWriter
from mmjepa.data.samples import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Sample
from mmjepa.errors import UserError

logger = logging.getLogger(__name__)

COLUMNS = ("path", "label", "caption")


@dataclass
class ListingConfig:
    """``raw``: a folder of class folders, or a .csv with the columns path, label and, optionally, caption.

    Paths of a CSV are relative to it. Several rows of one path are several captions of one file. ``out`` is the
    folder of the split; its name is the split's name.
    """

    raw: str = MISSING
    out: str = MISSING
    name: str = "folder"
    samples_per_shard: int = 500

    def __post_init__(self) -> None:
        if self.samples_per_shard < 1:
            raise UserError(f"samples_per_shard={self.samples_per_shard}: must be at least 1")


@dataclass
class _Entry:
    path: Path
    label_name: str
    captions: list[str]


def write_listing(config: ListingConfig) -> Path:
    """Copy the listed files into shards with a manifest, as they are, and return the split's folder.

    Labels are numbered in alphabetical order of their names. Files go into shards in a fixed random order, so that a
    shard holds all classes. Raises UserError if nothing is listed, a listed file is
    missing, or videos and images are mixed (a split is one or the other).
    """
    entries = _entries(Path(config.raw))
    random.Random(0).shuffle(entries)
    labels = {name: number for number, name in enumerate(sorted({entry.label_name for entry in entries}))}
    kinds = {"image" if _suffix(entry.path) in IMAGE_SUFFIXES else "video" for entry in entries}
    if len(kinds) > 1:
        raise UserError(f"{config.raw}: holds videos and images; make a split of each")
    folder = Path(config.out)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out={folder}: is a file, not a folder")
    provenance = Provenance.collect("data_prep/folder.py", {"raw": Path(config.raw).name}, 0, ["webdataset"])
    with ShardSetWriter(
        folder,
        name=config.name,
        split=folder.name,
        kind=kinds.pop(),
        provenance=provenance,
        samples_per_shard=config.samples_per_shard,
    ) as writer:
        for number, entry in enumerate(tqdm(entries, unit="file")):
            writer.write(_sample(number, entry, labels, config.name, folder.name))
    logger.info("%s: %d samples of %d classes", folder, len(entries), len(labels))
    return folder


def _sample(number: int, entry: _Entry, labels: dict[str, int], source: str, split: str) -> Sample:
    meta = {
        "label": labels[entry.label_name],
        "label_name": entry.label_name,
        "captions": entry.captions,
        "source": source,
        "split": split,
        "file": entry.path.name,
    }
    # Unique over the splits that are searched together; keys of shards must not hold dots.
    return Sample(f"{split.replace('.', '_')}-{number:08d}", entry.path.read_bytes(), _suffix(entry.path), meta)


def _entries(raw: Path) -> list[_Entry]:
    if raw.is_dir():
        entries = list(_from_folders(raw))
        wanted = f"<class>/<file> with one of {', '.join(sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES))}"
    elif raw.suffix == ".csv" and raw.is_file():
        try:
            entries = _from_csv(raw)
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"raw={raw}: is not a text file in UTF-8 with comma-separated values") from error
        wanted = "a row"
    else:
        raise UserError(f"raw={raw}: is neither a folder of class folders nor a .csv file")
    if not entries:
        raise UserError(f"raw={raw}: holds nothing to shard; expected {wanted}")
    return entries


def _from_folders(raw: Path) -> Iterator[_Entry]:
    for path in sorted(raw.glob("*/*")):
        if _suffix(path) in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
            yield _Entry(path, path.parent.name, [])


def _from_csv(raw: Path) -> list[_Entry]:
    by_path: dict[Path, _Entry] = {}
    with raw.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if not {"path", "label"} <= set(rows.fieldnames or ()):
            raise UserError(f"{raw}: the first line must name the columns {', '.join(COLUMNS)} (caption is optional)")
        for line, row in enumerate(rows, start=2):
            path = raw.parent / (row["path"] or "")
            if not path.is_file() or _suffix(path) not in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
                raise UserError(f"{raw} line {line}: {path} is not a video or image file")
            if not row["label"]:
                raise UserError(f"{raw} line {line}: {path} has no label")
            entry = by_path.setdefault(path, _Entry(path, row["label"], []))
            if entry.label_name != row["label"]:
                raise UserError(f"{raw} line {line}: {path} has two labels, {entry.label_name} and {row['label']}")
            if row.get("caption"):
                entry.captions.append(row["caption"])
    return list(by_path.values())


def _suffix(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")
