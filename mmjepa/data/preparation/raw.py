"""Looking into a download: annotation files by their published names, media files by their names without suffix."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmjepa.data.preparation.records import LeftOut, Record
from mmjepa.errors import UserError

_LOG = logging.getLogger(__name__)

VIDEO_FILES = frozenset(
    [
        "mp4",
        "webm",
        "mkv",
        "avi",
        "mov",
        "m4v",
        "mpg",
        "mpeg",
        "wmv",
        "flv",
        "3gp",
        "mts",
        "m2ts",
        "ts",
        "ogv",
        "vob",
        "asf",
    ]
)
"""Suffixes of files that are taken for videos; whether they are shows when they are decoded."""


class RawFolder:
    """All files under ``raw`` (and ``videos``), however they are nested. Hidden files do not count."""

    def __init__(self, raw: str, videos: str | None = None) -> None:
        self.path = Path(raw)
        if not self.path.is_dir():
            raise UserError(f"raw={raw}: there is no such folder")
        if videos is not None and not Path(videos).is_dir():
            raise UserError(f"videos={videos}: there is no such folder")
        self._files = list(walk(self.path))
        self._videos: dict[str, list[Path]] = {}
        self._named: set[str] = set()
        for path in self._files if videos is None else walk(Path(videos)):
            if path.suffix.lower().removeprefix(".") in VIDEO_FILES:
                self._videos.setdefault(_stem(path.name), []).append(path)

    def has(self, *names: str) -> bool:
        """Whether there is an annotation file of one of these names."""
        return any(path.name in names for path in self._files)

    def annotation(self, *names: str) -> Path:
        """The one file with one of these names. Raises UserError if there is none or more than one."""
        found = sorted(path for path in self._files if path.name in names)
        if len(found) != 1:
            listed = " or ".join(names)
            many = f"{len(found)} files, e.g. {found[0]} and {found[1]}" if found else "no file"
            raise UserError(f"{self.path}: {many} with the name {listed}; the download must hold one")
        return found[0]

    def video(self, name: str) -> Path | None:
        """The video of this name, whatever its suffix and folder. Raises UserError if several fit."""
        found = self._videos.get(_stem(name), [])
        self._named.add(_stem(name))
        if len(found) > 1:
            raise UserError(f"two files for the video {name}: {found[0]} and {found[1]}; remove one of them")
        return found[0] if found else None

    def record(self, id: str, **fields: Any) -> Record | LeftOut:
        """The record of the video called ``id``, or a note that its file is missing."""
        path = self.video(id)
        return Record(id, path, **fields) if path else LeftOut(id, id, "no such file")

    def log_unnamed(self) -> None:
        """Say how many videos were asked for by nobody: part of the data set that is not used, or strangers."""
        unnamed = [paths[0] for stem, paths in self._videos.items() if stem not in self._named]
        if unnamed:
            _LOG.info("%d videos are not in the lists that were read, e.g. %s", len(unnamed), unnamed[0])


def walk(root: Path) -> Iterator[Path]:
    """All files below ``root``, in the order of their names; what is hidden (a dot first) is passed over."""
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def _stem(name: str) -> str:
    """A file name without video suffixes. Some downloads carry two: that of the upload and that of the copy."""
    while name.rpartition(".")[2].lower() in VIDEO_FILES and "." in name:
        name = name.rpartition(".")[0]
    return name


def read_text(path: Path) -> str:
    """A text file in UTF-8; raises UserError if it is none."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not a text file in UTF-8") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error


def read_lines(path: Path) -> list[str]:
    """Lines of a text file that hold something, without white space at both ends."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_json(path: Path) -> Any:
    """A JSON file; raises UserError if it is none."""
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error})") from error


def read_entries(path: Path, *fields: str, inside: str | None = None) -> list[dict[str, Any]]:
    """A JSON list of objects that all have ``fields``; with ``inside``, the list under that name of a JSON object."""
    content = read_json(path)
    if inside is not None:
        content = content.get(inside) if isinstance(content, dict) else None
    if not isinstance(content, list):
        raise UserError(f"{path}: does not hold a list{f' called {inside}' if inside else ''}")
    for number, entry in enumerate(content):
        lacking = [name for name in fields if not isinstance(entry, dict) or name not in entry]
        if lacking:
            raise UserError(f"{path}: entry {number} has no {', '.join(lacking)}")
    return content


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV file with a header that names at least ``columns``, which are filled in every row."""
    return [row for _, row in read_rows(path, columns)]


def read_rows(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Like :func:`read_table`, each row after the number of the line that it ends on.

    Raises UserError, with that line, if a column is empty or if there are more fields than columns, as where a comma of
    a caption is not quoted: what follows it would be lost.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        lacking = [name for name in columns if name not in (reader.fieldnames or ())]
        if lacking:
            raise UserError(f"{path}: the first line must name the columns {', '.join(columns)}; no {lacking[0]}")
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path}: {error}") from error
    for line, row in rows:
        empty = [name for name in columns if not row[name]]
        if empty:
            raise UserError(f"{path} line {line}: no {', '.join(empty)}")
        if None in row:
            raise UserError(f"{path} line {line}: more fields than columns; put texts with commas into double quotes")
    if not rows:
        raise UserError(f"{path}: holds no rows")
    return rows
