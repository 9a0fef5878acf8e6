"""Loose files: a tree of class folders, or a CSV that names files, labels and captions."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmjepa.data.manifest import is_finished
from mmjepa.data.preparation.options import PreparationConfig, StillEncoding, VideoEncoding
from mmjepa.data.preparation.raw import VIDEO_FILES, read_lines, read_rows, walk
from mmjepa.data.preparation.records import LeftOut, Record, SplitPlan, split_up
from mmjepa.data.preparation.splits import prepare
from mmjepa.data.samples import IMAGE_SUFFIXES
from mmjepa.errors import UserError

MEDIA_FILES = VIDEO_FILES | IMAGE_SUFFIXES
CLASSES = "classes.txt"
_LOG = logging.getLogger(__name__)


@dataclass
class ListingConfig(PreparationConfig):
    """``raw``: a folder of class folders, or a .csv with the columns path, label and, optionally, caption.

    Paths of a CSV are relative to it. Several rows of one path are several captions of one file. ``out`` is the
    folder of the split; its name is the split's name. ``classes``: a file with the name of one class a line, in the
    order of their labels, such as the classes.txt of another split, whose labels then mean the same; null numbers the
    classes at hand in alphabetical order. Whatever the files are, videos or stills, decides which of ``video`` and
    ``still`` holds.
    """

    name: str = "folder"
    classes: str | None = None
    video: VideoEncoding = field(default_factory=VideoEncoding)
    still: StillEncoding = field(default_factory=StillEncoding)


@dataclass
class _Entry:
    path: Path
    label_name: str
    captions: list[str]


def write_listing(config: ListingConfig) -> None:
    """A folder of class folders, or the files of a CSV (path, label, caption), to shards.

    Beside the manifest, classes.txt names the classes in the order of their labels. Raises UserError if nothing is
    listed, a class is not in ``classes``, files are missing (see ``missing``), or videos and images are mixed (a split
    is one or the other).
    """
    raw, out = Path(config.raw), Path(config.out)
    entries = sorted(_entries(raw), key=lambda entry: entry.path)
    classes = _classes(config, entries)
    labels = {name: number for number, name in enumerate(classes)}
    kinds = {"image" if _suffix(entry.path) in IMAGE_SUFFIXES else "video" for entry in entries}
    if len(kinds) > 1:
        raise UserError(f"{config.raw}: holds videos and images; make a split of each")
    kind = kinds.pop()
    records, missing = split_up(
        Record(
            f"{number:08d}",
            entry.path,
            labels[entry.label_name],
            entry.label_name,
            tuple(entry.captions),
            {"file": entry.path.name},
        )
        if entry.path.is_file()
        else LeftOut(f"{number:08d}", str(entry.path), "no such file")
        for number, entry in enumerate(entries)
    )
    annotations = [raw] if raw.is_file() else []
    plan = SplitPlan(config.name, out.name, out.name, kind, records, missing, annotations)
    encoding = config.still if kind == "image" else config.video
    prepare(config, "data_prep/folder.py", [plan], encoding, out=out.parent)
    if is_finished(out):
        (out / CLASSES).write_text("".join(f"{name}\n" for name in classes))


def _classes(config: ListingConfig, entries: Sequence[_Entry]) -> list[str]:
    """Names of the classes in the order of their labels."""
    present = {entry.label_name for entry in entries}
    if config.classes is None:
        return sorted(present)
    listed = read_lines(Path(config.classes))
    twice = sorted(name for name, times in Counter(listed).items() if times > 1)
    if twice:
        raise UserError(f"classes={config.classes}: names {twice[0]} twice")
    strange = sorted(present - set(listed))
    if strange:
        raise UserError(f"classes={config.classes}: does not name {', '.join(strange[:3])}, which {config.raw} has")
    return listed


def _entries(raw: Path) -> list[_Entry]:
    if raw.is_dir():
        entries = _from_folders(raw)
        wanted = f"<class>/<file> with one of {', '.join(sorted(MEDIA_FILES))}"
    elif raw.suffix == ".csv" and raw.is_file():
        entries = _from_csv(raw)
        wanted = "a row"
    else:
        raise UserError(f"raw={raw}: is neither a folder of class folders nor a .csv file")
    if not entries:
        raise UserError(f"raw={raw}: holds nothing to shard; expected {wanted}")
    return entries


def _from_folders(raw: Path) -> list[_Entry]:
    files = list(walk(raw))
    media = [path for path in files if _suffix(path) in MEDIA_FILES]
    entries = [_Entry(path, path.parent.name, []) for path in media if path.parent.parent == raw]
    if entries and len(entries) < len(media):
        other = next(path for path in media if path.parent.parent != raw)
        _LOG.warning("%d files are not in a class folder of %s, e.g. %s", len(media) - len(entries), raw, other)
    return entries


def _from_csv(raw: Path) -> list[_Entry]:
    by_path: dict[Path, _Entry] = {}
    for line, row in read_rows(raw, ("path", "label")):
        path = raw.parent / row["path"]
        if _suffix(path) not in MEDIA_FILES:
            raise UserError(f"{raw} line {line}: {path} is not a video or image file by its name")
        entry = by_path.setdefault(path, _Entry(path, row["label"], []))
        if entry.label_name != row["label"]:
            raise UserError(f"{raw} line {line}: {path} has two labels, {entry.label_name} and {row['label']}")
        if row.get("caption"):
            entry.captions.append(row["caption"])
    return list(by_path.values())


def _suffix(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")
