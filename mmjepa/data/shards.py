"""Random access to the samples of a split: shards are plain tar files, indexed once by scanning their headers.

The manifest alone says how many samples a split has and how they are numbered, so that damage on one machine does not
change the order of training. What a damaged shard still holds is used; what it lacks is named in
:attr:`ShardedSplit.damage`, keeps its place, and is an unusable sample there. The scan resynchronises after a damaged
header: readers that stop there lose the rest of the shard without a word.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmjepa.data.manifest import Manifest
from mmjepa.data.samples import (
    CHECKSUM,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Failure,
    Sample,
    UnusableSample,
    checksum_holds,
)
from mmjepa.errors import UserError

MEDIA_SUFFIXES = {"video": VIDEO_SUFFIXES, "image": IMAGE_SUFFIXES}
_MEMBER_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")  # WebDataset's rule: the key ends at the file name's first dot
_OPEN_SHARDS = 32
NOT_IN_SHARD = "no complete sample in its place in the shard"


@dataclass(frozen=True)
class Extent:
    """Where the bytes of a file lie in its shard."""

    offset: int
    size: int


@dataclass(frozen=True)
class Place:
    """Where a sample lies: its shard, its key, the suffix and the extent of its media file, the extent of its JSON."""

    shard: Path
    key: str
    suffix: str
    media: Extent
    meta: Extent


@dataclass
class _Entry:
    """The files of one key, as far as the scan has found them."""

    suffix: str | None = None
    media: Extent | None = None
    meta: Extent | None = None


@dataclass
class ShardScan:
    """What lies in each place of one shard, and what is wrong.

    A sample with one file lost keeps its place; one of which nothing is left has none, so that those behind it move up
    and the last place of the shard is empty.
    """

    places: list[Place | None] = field(default_factory=list)
    damage: list[Failure] = field(default_factory=list)


def scan_shard(path: Path, kind: str, expected: int) -> ShardScan:
    """Index one shard that should hold ``expected`` samples of ``kind``. Never raises for what is in the file."""
    scan = ShardScan()
    entries: dict[str, _Entry] = {}
    trouble = "damaged or missing files"
    try:
        size = path.stat().st_size
        for name, extent in _tar_members(path):
            matched = _MEMBER_NAME.fullmatch(name)
            if matched is None:
                continue
            if extent.offset + extent.size > size:
                trouble = "the shard is cut short"
                continue
            entry, suffix = entries.setdefault(matched[1], _Entry()), matched[2].lower()
            if suffix == "json":
                entry.meta = entry.meta or extent
            elif suffix in MEDIA_SUFFIXES[kind] and entry.media is None:
                entry.suffix, entry.media = suffix, extent
    except (tarfile.TarError, OSError, ValueError) as error:  # ValueError: numbers in damaged extended headers
        trouble = str(error) or type(error).__name__
    for key, entry in entries.items():
        if entry.suffix is not None and entry.media is not None and entry.meta is not None:
            scan.places.append(Place(path, key, entry.suffix, entry.media, entry.meta))
        else:
            lacking = f"{kind} file" if entry.media is None else "JSON file"
            scan.damage.append(Failure(str(path), key, f"no complete {lacking} in the shard"))
            scan.places.append(None)
    found = len(scan.places) - scan.places.count(None)
    if found != expected:
        reason = f"{found} usable samples where the manifest says {expected}: {trouble}"
        scan.damage.insert(0, Failure(str(path), None, reason))
    while len(scan.places) > expected and None in scan.places:  # a damaged name makes one sample look like two
        scan.places.remove(None)
    scan.places = scan.places[:expected] + [None] * (expected - len(scan.places))
    return scan


def _tar_members(path: Path) -> Iterable[tuple[str, Extent]]:
    """(name, extent) of the regular files of a tar, passing over blocks that are not a valid header."""
    # ignore_zeros makes tarfile step on block by block after an invalid header instead of ending silently.
    with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:", ignore_zeros=True) as archive:
        for member in archive:
            if archive.offset <= member.offset:  # tarfile believes a negative size, and would go round in circles
                raise tarfile.ReadError(f"negative size of {member.name}")
            if member.isreg():
                yield member.name, Extent(member.offset_data, member.size)


class ShardFiles:
    """Reads byte ranges of shards, keeping the most recently used ones open. Each process opens its own files.

    opener: gives a descriptor of a shard; without one, paths are files.
    """

    def __init__(self, opener: Callable[[Path], int] | None = None) -> None:
        self._opener = opener or partial(os.open, flags=os.O_RDONLY)
        self._open: OrderedDict[Path, int] = OrderedDict()

    def read(self, path: Path, extent: Extent) -> bytes:
        """The bytes of ``extent``; raises UnusableSample if the shard no longer holds them."""
        try:
            data = os.pread(self.descriptor(path), extent.size, extent.offset)
        except OSError as error:
            raise UnusableSample(f"shard unreadable: {error.strerror}") from error
        if len(data) != extent.size:
            raise UnusableSample("shard ends in the middle of the sample")
        return data

    def descriptor(self, path: Path) -> int:
        """The open file of a shard. Raises OSError."""
        if path not in self._open:
            if len(self._open) >= _OPEN_SHARDS:
                os.close(self._open.popitem(last=False)[1])
            self._open[path] = self._opener(path)
        self._open.move_to_end(path)
        return self._open[path]

    def __getstate__(self) -> dict[str, Any]:
        return {"_opener": self._opener, "_open": OrderedDict()}

    def __del__(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)


class ShardedSplit:
    """One split on disk: as many samples as its manifest says, numbered in file order, read by index.

    Raises UserError if the folder, its manifest or every shard is missing or holds nothing usable.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise UserError(
                f"no data at {path}: there is no such folder (a split is a folder of shards and a manifest)"
            )
        self.path = path
        self.manifest = Manifest.read(path)
        self.kind = self.manifest.kind
        self.shard_paths = [path / shard.name for shard in self.manifest.shards]
        self.shard_sizes = [shard.samples for shard in self.manifest.shards]
        self._ends = np.cumsum(self.shard_sizes)
        self.damage: list[Failure] = []
        self._files = ShardFiles()
        self._index()

    def _index(self) -> None:
        """Scan the shards."""
        places: list[Place | None] = []
        for shard, size in zip(self.shard_paths, self.shard_sizes, strict=True):
            scan = scan_shard(shard, self.kind, size)
            self.damage += scan.damage
            places += scan.places
        if not any(places):
            raise UserError(
                f"no usable samples in {self.path}: its {len(self.shard_paths)} shards are missing, empty or damaged"
            )
        # Arrays, not objects: worker processes share them with the parent instead of copying them page by page.
        self._present = np.array([place is not None for place in places])
        self._keys = np.array([b"" if place is None else place.key.encode() for place in places])
        self._suffixes = np.array([b"" if place is None else place.suffix.encode() for place in places])
        self._extents = np.array(
            [(0, 0, 0, 0) if place is None else (*_pair(place.media), *_pair(place.meta)) for place in places],
            dtype=np.int64,
        )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def present(self) -> list[int]:
        """Indices of the samples that the shards held, complete, when the split was opened."""
        return np.flatnonzero(self._present).tolist()

    def key(self, index: int) -> str:
        """The key of sample ``index``. Raises UnusableSample if its shard does not hold it."""
        return self._find(index).key

    def failure(self, index: int, reason: str) -> Failure:
        """A record that sample ``index`` could not be used; it has no key if the shard does not hold the sample."""
        try:
            key = self.key(index)
        except UnusableSample:
            key = None
        return Failure(self._shard_name(index), key, reason)

    def read(self, index: int) -> Sample:
        """Sample ``index``, undecoded.

        Raises UnusableSample if its bytes are gone, differ from its checksum (if the shard holds one), or its JSON is
        no JSON object.
        """
        place = self._find(index)
        media = self._files.read(place.shard, place.media)
        stored = self._files.read(place.shard, place.meta)
        meta = _parsed(stored)
        expected = meta.pop(CHECKSUM, None)
        if expected is not None and not checksum_holds(expected, media, stored, meta):
            raise UnusableSample("bytes differ from the checksum: damaged since the shard was written")
        return Sample(place.key, media, place.suffix, meta)

    def meta(self, index: int) -> dict[str, Any]:
        """The JSON of sample ``index`` alone. Raises UnusableSample if it is gone or no JSON object."""
        place = self._find(index)
        meta = _parsed(self._files.read(place.shard, place.meta))
        meta.pop(CHECKSUM, None)
        return meta

    def _shard_of(self, index: int) -> int:
        return int(np.searchsorted(self._ends, index, side="right"))

    def _shard_name(self, index: int) -> str:
        return str(self.shard_paths[self._shard_of(index)])

    def _find(self, index: int) -> Place:
        if not self._present[index]:
            raise UnusableSample(NOT_IN_SHARD)
        media_offset, media_size, meta_offset, meta_size = (int(number) for number in self._extents[index])
        return Place(
            self.shard_paths[self._shard_of(index)],
            bytes(self._keys[index]).decode(),
            bytes(self._suffixes[index]).decode(),
            Extent(media_offset, media_size),
            Extent(meta_offset, meta_size),
        )


def _parsed(stored: bytes) -> dict[str, Any]:
    try:
        meta = json.loads(stored)
    except (ValueError, RecursionError) as error:
        raise UnusableSample(f"invalid JSON: {error}") from error
    if not isinstance(meta, dict):
        raise UnusableSample("invalid JSON: not an object")
    return meta


def _pair(extent: Extent) -> tuple[int, int]:
    return extent.offset, extent.size
