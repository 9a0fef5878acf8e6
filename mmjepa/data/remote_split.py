"""A split whose shards lie elsewhere, read by index like a local one."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from mmjepa.data.manifest import Manifest
from mmjepa.data.remote import Origin
from mmjepa.data.samples import Failure, UnusableSample
from mmjepa.data.shards import Place, ShardedSplit, ShardFiles, scan_shard

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
        self.path, self._origin = path, origin
        self.manifest = Manifest.read(path)
        self.kind = self.manifest.kind
        self.damage = []
        self.shard_paths = [path / shard.name for shard in self.manifest.shards]
        self.shard_sizes = [shard.samples for shard in self.manifest.shards]
        self._ends = np.cumsum(self.shard_sizes)
        self._entries = {path / shard.name: shard for shard in self.manifest.shards}
        self._files = ShardFiles(self._open)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def key(self, index: int) -> str:
        """The key of sample ``index``: its shard is fetched if need be."""
        return self._find(index).key

    def failure(self, index: int, reason: str) -> Failure:
        """A record that sample ``index`` could not be used; it has no key if its shard could not be had."""
        shard = self._origin.shard_url(self.shard_paths[self._shard_of(index)].name)
        try:
            return Failure(shard, self.key(index), reason)
        except UnusableSample:
            return Failure(shard, None, reason)

    def _open(self, path: Path) -> int:
        return self._origin.open(self._entries[path])

    def _shard_of(self, index: int) -> int:
        return int(np.searchsorted(self._ends, index, side="right"))

    def _find(self, index: int) -> Place:
        number = self._shard_of(index)
        shard = self.shard_paths[number]
        try:
            descriptor = self._files.descriptor(shard)
        except OSError as error:
            raise UnusableSample(f"shard cannot be fetched: {error.strerror or error}") from error
        entry = self._entries[shard]
        samples = _samples(descriptor, entry.sha256, self.kind, entry.samples)
        position = index - int(self._ends[number]) + entry.samples
        if position >= len(samples):
            raise UnusableSample("no complete sample in its place in the shard")
        key, suffix, media, meta = samples[position]
        return Place(shard, key, suffix, media, meta)


@lru_cache(maxsize=_SCANS)
def _samples(descriptor: int, sha256: str, kind: str, expected: int) -> list:
    """What a shard of this digest holds, by a descriptor of it that need not be valid when the answer is known."""
    return scan_shard(Path(f"/dev/fd/{descriptor}"), kind, expected).samples
