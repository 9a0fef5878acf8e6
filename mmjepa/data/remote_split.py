"""A split whose shards lie elsewhere, read by index like a local one."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from mmjepa.data.remote import Origin
from mmjepa.data.samples import UnusableSample
from mmjepa.data.shards import NOT_IN_SHARD, Place, ShardedSplit, ShardFiles, scan_shard

_SCANS = 64  # shards whose tables of contents a process remembers


def open_split(path: Path) -> ShardedSplit:
    """The split in ``path``, or the one elsewhere of which ``path`` is the mirror. Raises UserError."""
    origin = Origin.of(path)
    return ShardedSplit(path) if origin is None else RemoteSplit(path, origin)


class RemoteSplit(ShardedSplit):
    """As many samples as the manifest says, in its order; a shard is fetched and indexed when one of its is read.

    So the order of training is known without any shard. What a shard turns out not to hold is an unusable sample.
    """

    def __init__(self, path: Path, origin: Origin) -> None:
        self._origin = origin
        super().__init__(path)
        self._entries = {path / shard.name: shard for shard in self.manifest.shards}
        self._files = ShardFiles(self._open)

    def _index(self) -> None:
        """Nothing yet: see :func:`_places`."""

    def present(self) -> list[int]:
        """All: what a shard lacks is only known once it has been fetched."""
        return list(range(len(self)))

    def _open(self, path: Path) -> int:
        return self._origin.open(self._entries[path])

    def _shard_name(self, index: int) -> str:
        return self._origin.shard_url(self.shard_paths[self._shard_of(index)].name)

    def _find(self, index: int) -> Place:
        number = self._shard_of(index)
        shard = self.shard_paths[number]
        try:
            descriptor = self._files.descriptor(shard)
        except OSError as error:
            raise UnusableSample(f"shard cannot be fetched: {error.strerror or error}") from error
        entry = self._entries[shard]
        places = _places(descriptor, entry.sha256, self.kind, entry.samples)
        place = places[index - int(self._ends[number]) + entry.samples]
        if place is None:
            raise UnusableSample(NOT_IN_SHARD)
        return replace(place, shard=shard)


@lru_cache(maxsize=_SCANS)
def _places(descriptor: int, sha256: str, kind: str, expected: int) -> list[Place | None]:
    """What a shard of this digest holds, by a descriptor of it that need not be valid when the answer is known."""
    return scan_shard(Path(f"/dev/fd/{descriptor}"), kind, expected).places
