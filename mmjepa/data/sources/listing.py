"""Loose files: a tree of class folders, or a CSV that names files, labels and captions."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mmjepa.data.preparation.options import PreparationConfig, StillEncoding, VideoEncoding
from mmjepa.data.preparation.raw import VIDEO_FILES
from mmjepa.data.preparation.records import Record, SplitPlan
from mmjepa.data.preparation.splits import prepare
from mmjepa.data.samples import IMAGE_SUFFIXES
from mmjepa.errors import UserError

MEDIA_FILES = VIDEO_FILES | IMAGE_SUFFIXES
COLUMNS = ("path", "label", "caption")


@dataclass
class ListingConfig(PreparationConfig):
    """``raw``: a folder of class folders, or a .csv with the columns path, label and, optionally, caption.

    Paths of a CSV are relative to it. Several rows of one path are several captions of one file. ``out`` is the
    folder of the split; its name is the split's name. Whatever the files are, videos or stills, decides which of
    ``video`` and ``still`` holds.
    """

    name: str = "folder"
    video: VideoEncoding = field(default_factory=VideoEncoding)
    still: StillEncoding = field(default_factory=StillEncoding)


@dataclass
class _Entry:
    path: Path
    label_name: str
    captions: list[str]


def write_listing(config: ListingConfig) -> None:
    """A folder of class folders, or the files of a CSV (path, label, caption), to shards.

    Labels are numbered in alphabetical order of their names. Raises UserError if nothing is listed, a listed file is
    missing, or videos and images are mixed (a split is one or the other).
    """
    raw, out = Path(config.raw), Path(config.out)
    entries = sorted(_entries(raw), key=lambda entry: entry.path)
    labels = {name: number for number, name in enumerate(sorted({entry.label_name for entry in entries}))}
    kinds = {"image" if _suffix(entry.path) in IMAGE_SUFFIXES else "video" for entry in entries}
    if len(kinds) > 1:
        raise UserError(f"{config.raw}: holds videos and images; make a split of each")
    kind = kinds.pop()
    records = [
        Record(
            f"{number:08d}",
            entry.path,
            labels[entry.label_name],
            entry.label_name,
            tuple(entry.captions),
            {"file": entry.path.name},
        )
        for number, entry in enumerate(entries)
    ]
    annotations = [raw] if raw.is_file() else []
    plan = SplitPlan(config.name, out.name, out.name, kind, records, annotations=annotations)
    encoding = config.still if kind == "image" else config.video
    prepare(config, "data_prep/folder.py", [plan], encoding, out=out.parent)


def _entries(raw: Path) -> list[_Entry]:
    if raw.is_dir():
        entries = list(_from_folders(raw))
        wanted = f"<class>/<file> with one of {', '.join(sorted(MEDIA_FILES))}"
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
    for path in raw.glob("*/*"):
        if _suffix(path) in MEDIA_FILES:
            yield _Entry(path, path.parent.name, [])


def _from_csv(raw: Path) -> list[_Entry]:
    by_path: dict[Path, _Entry] = {}
    with raw.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if not {"path", "label"} <= set(rows.fieldnames or ()):
            raise UserError(f"{raw}: the first line must name the columns {', '.join(COLUMNS)} (caption is optional)")
        for line, row in enumerate(rows, start=2):
            path = raw.parent / (row["path"] or "")
            if not path.is_file() or _suffix(path) not in MEDIA_FILES:
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
