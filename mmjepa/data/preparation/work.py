"""One shard: the unit of work that is done once, anywhere, and remembered beside the shard.

A finished shard has a note (``.finished/<shard>.json``) with its digest and table entry. It is written after the shard;
both are atomic. So whatever is interrupted, a note speaks of a whole shard, and nothing with a note is made again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmjepa.data.manifest import ShardEntry, write_shard
from mmjepa.data.preparation.media import store_still, store_video
from mmjepa.data.preparation.options import StillEncoding, VideoEncoding
from mmjepa.data.preparation.parquet import read_images
from mmjepa.data.preparation.records import LeftOut, ParquetRow, Record
from mmjepa.data.preparation.source_video import UnreadableMedia
from mmjepa.data.samples import Sample, UnusableSample
from mmjepa.data.workers import WatchedWork, ordered_batches
from mmjepa.digest import file_sha256
from mmjepa.errors import UserError

NOTES = ".finished"
PACKAGES = ("av", "pillow", "webdataset")
PREFETCH = 2  # files stored ahead of what the shard takes
_FORMAT = 1  # part of every digest: raise it with every change that alters shards


@dataclass(frozen=True)
class ShardTask:
    """A shard to make at ``path`` from ``records`` (key, record)."""

    path: Path
    source: str
    split: str
    records: tuple[tuple[str, Record], ...]
    encoding: VideoEncoding | StillEncoding
    checksums: tuple[str, ...] | None
    """SHA-256 of each record's file; None: not known."""
    timeout: float
    """Seconds for one video; no part of the digest."""

    @property
    def digest(self) -> str:
        """Identifies everything that the shard's bytes depend on, but the contents of the media files (hex)."""
        rows = [
            [key, record.media.name, record.window, record.meta(self.source, self.split)]
            for key, record in self.records
        ]
        versions = {package: importlib.metadata.version(package) for package in PACKAGES}
        content = [_FORMAT, versions, dataclasses.asdict(self.encoding), rows, self.checksums]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class ShardNote:
    """What is remembered of a finished shard, and what did not decode on the way."""

    digest: str
    entry: ShardEntry
    left_out: tuple[LeftOut, ...]

    def write(self, path: Path) -> None:
        """Write the note atomically."""
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        temporary.write_text(json.dumps(dataclasses.asdict(self)))
        os.replace(temporary, path)

    @classmethod
    def read(cls, path: Path) -> ShardNote:
        """Read a note. Raises UserError if it is damaged."""
        try:
            content: dict[str, Any] = json.loads(path.read_text())
            left_out = tuple(LeftOut(**one) for one in content["left_out"])
            return cls(content["digest"], ShardEntry(**content["entry"]), left_out)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: damaged ({type(error).__name__}); delete it to make that shard again") from error


def finished_note(task: ShardTask) -> ShardNote | None:
    """The note of the shard if it is finished, else None. Raises UserError if it was made with other settings."""
    path = _note_path(task)
    if not path.is_file():
        return None
    note = ShardNote.read(path)
    if note.digest != task.digest:
        raise UserError(
            f"{task.path.parent}: holds shards of other settings, files or library versions; delete it or give "
            "another out=..."
        )
    if not task.path.is_file() or task.path.stat().st_size != note.entry.bytes:
        return None  # the shard was removed or cut since
    return note


def make_shard(task: ShardTask) -> ShardNote:
    """Make one shard and its note."""
    left_out: list[LeftOut] = []
    task.path.parent.mkdir(parents=True, exist_ok=True)
    entry = write_shard(task.path, _samples(task, left_out))
    note = ShardNote(task.digest, entry, tuple(left_out))
    note.write(_note_path(task))
    return note


def _note_path(task: ShardTask) -> Path:
    return task.path.parent / NOTES / f"{task.path.stem}.json"


def _samples(task: ShardTask, left_out: list[LeftOut]) -> Iterator[Sample]:
    """The samples that decode; the others go to ``left_out``."""
    # A damaged video can crash or hang a decoder: a process of its own. Pillow is not known for either.
    workers = 1 if isinstance(task.encoding, VideoEncoding) else 0
    with contextlib.closing(ordered_batches(_Storing(task), range(len(task.records)), workers, PREFETCH)) as results:
        for (key, record), stored in zip(task.records, results, strict=True):
            if isinstance(stored, str):
                left_out.append(LeftOut(record.id, _shown(record), stored))
            else:
                suffix, media = stored
                yield Sample(key, media, suffix, record.meta(task.source, task.split))


def _shown(record: Record) -> str:
    """The record's file as messages name it: with its folder, which is its class in many a data set."""
    return "/".join(record.media.parts[-2:]) if isinstance(record.media, Path) else record.media.name


class _Storing(WatchedWork):
    """Number of a record -> (suffix, bytes) as the shard stores it, or the reason (str) why it cannot be used."""

    def __init__(self, task: ShardTask) -> None:
        super().__init__()
        self._task = task
        self._rows = read_images([record.media for _, record in task.records if isinstance(record.media, ParquetRow)])

    @property
    def overdue_seconds(self) -> float:
        return self._task.timeout

    def __getitem__(self, number: int) -> tuple[str, bytes] | str:
        try:
            self.check_refused(0, number)
            with self.noted(0, number):
                record = self._task.records[number][1]
                if self._task.checksums is not None:
                    self._check(record, self._task.checksums[number])
                return self._store(record)
        except (UnreadableMedia, UnusableSample) as error:
            return str(error)

    def _check(self, record: Record, expected: str) -> None:
        assert isinstance(record.media, Path), "only files have checksums"
        if file_sha256(record.media) != expected:
            raise UnreadableMedia("differs from its checksum")

    def _store(self, record: Record) -> tuple[str, bytes]:
        if isinstance(self._task.encoding, VideoEncoding):
            assert isinstance(record.media, Path), "videos are files"
            return store_video(record.media, record.window, self._task.encoding)
        data = self._rows[record.media] if isinstance(record.media, ParquetRow) else record.media.read_bytes()
        return store_still(data, self._task.encoding)
