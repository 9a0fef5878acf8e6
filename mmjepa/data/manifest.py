"""Writing a split: WebDataset shards and the manifest that says what they must contain.

A truncated or damaged tar ends silently when it is read, so every reader needs to know how many samples a shard should
hold. The manifest is written last and atomically: a split without one is unfinished.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import secrets
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import webdataset

from mmjepa.data.samples import CHECKSUM, Sample, checksum
from mmjepa.errors import UserError

FORMAT = 1
KINDS = ("video", "image")
_FILE = "manifest.json"


@dataclass(frozen=True)
class ShardEntry:
    """One shard: file name, number of samples, size in bytes, SHA-256 of the file (hex)."""

    name: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """Where a split comes from. ``arguments`` holds everything that its content depends on besides the seed."""

    program: str
    arguments: dict[str, Any]
    seed: int
    versions: dict[str, str]
    commit: str

    @classmethod
    def collect(cls, program: str, arguments: dict[str, Any], seed: int, packages: Sequence[str]) -> Provenance:
        """Provenance of a split being made now: versions of ``packages`` and the commit of this source tree."""
        versions = {package: importlib.metadata.version(package) for package in packages}
        return cls(program, arguments, seed, versions, source_commit())

    def same_content(self, other: Provenance) -> bool:
        """Whether both describe the same data; another commit alone does not make other data."""
        return dataclasses.replace(self, commit="") == dataclasses.replace(other, commit="")


def source_commit() -> str:
    """The git commit of the source tree this module lies in, or "unknown" outside a repository."""
    folder = Path(__file__).resolve().parent
    try:
        command = ["git", "rev-parse", "HEAD"]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return "unknown"
    return result.stdout.strip() if result.returncode == 0 else "unknown"


@dataclass(frozen=True)
class Manifest:
    """Table of contents of one split (docs/architecture.md, "Data on disk")."""

    name: str
    split: str
    kind: str  # "video" or "image"
    shards: tuple[ShardEntry, ...]
    provenance: Provenance

    @property
    def samples(self) -> int:
        """Number of samples in all shards."""
        return sum(shard.samples for shard in self.shards)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the shard digests in order: equal data, equal fingerprint."""
        return hashlib.sha256("\n".join(shard.sha256 for shard in self.shards).encode()).hexdigest()

    def write(self, folder: Path) -> None:
        """Write ``folder``/manifest.json atomically."""
        content = {"format": FORMAT, "name": self.name, "split": self.split, "kind": self.kind}
        content |= {"samples": self.samples, "fingerprint": self.fingerprint}
        content |= {"shards": [dataclasses.asdict(shard) for shard in self.shards]}
        content |= {"provenance": dataclasses.asdict(self.provenance)}
        temporary = folder / f".{_FILE}.tmp"
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        os.replace(temporary, folder / _FILE)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read ``folder``/manifest.json. Raises :class:`UserError` if it is missing, damaged or of another format."""
        path = folder / _FILE
        if not path.is_file():
            raise UserError(f"{folder}: no {_FILE}: not a data split, or one whose making was interrupted")
        try:
            content = json.loads(path.read_text())
            if content["format"] != FORMAT:
                raise UserError(f"{path}: format {content['format']}, this version reads format {FORMAT}")
            shards = tuple(ShardEntry(**entry) for entry in content["shards"])
            provenance = Provenance(**content["provenance"])
            manifest = cls(content["name"], content["split"], content["kind"], shards, provenance)
            declared = content["samples"], content["fingerprint"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not a valid manifest ({type(error).__name__}: {error})") from error
        if manifest.kind not in KINDS or declared != (manifest.samples, manifest.fingerprint):
            raise UserError(f"{path}: kind, sample count or fingerprint does not fit its own list of shards")
        return manifest


def is_finished(folder: Path) -> bool:
    """Whether ``folder`` holds a manifest, that is, a split whose making was completed."""
    return (folder / _FILE).is_file()


def shard_name(number: int) -> str:
    """File name of shard ``number``."""
    return f"shard-{number:06d}.tar"


def write_shard(path: Path, samples: Iterable[Sample]) -> ShardEntry:
    """Write samples to one tar, atomically, byte for byte the same for the same samples (no times, no user names).

    Raises ValueError if a key holds a dot: WebDataset would take the rest of the key for a file suffix.
    """
    # A name of its own: the same shard may be on its way twice, after a restart or in overlapping array tasks.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    count = 0
    with temporary.open("wb") as stream:
        with webdataset.TarWriter(stream, user="", group="", encoder=False, mtime=0) as writer:
            for sample in samples:
                if "." in sample.key:
                    raise ValueError(f"sample key {sample.key!r} holds a dot")
                meta = json.loads(json.dumps(sample.meta))  # as a reader will see it
                meta[CHECKSUM] = checksum(sample.media, meta)
                text = json.dumps(meta, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
                writer.write({"__key__": sample.key, sample.suffix: sample.media, "json": text.encode()})
                count += 1
        stream.flush()
        os.fsync(stream.fileno())
    content = temporary.read_bytes()
    os.replace(temporary, path)
    return ShardEntry(path.name, count, len(content), hashlib.sha256(content).hexdigest())


class ShardSetWriter:
    """Write a stream of samples as shards of ``samples_per_shard`` and, if all went well, the manifest.

    Use as a context manager; an exception inside leaves the split without manifest, that is, unfinished.
    Raises :class:`UserError` if the folder already holds a finished split.
    """

    def __init__(
        self, folder: Path, *, name: str, split: str, kind: str, provenance: Provenance, samples_per_shard: int
    ) -> None:
        if is_finished(folder):
            raise UserError(f"{folder}: already holds a finished split; delete it or choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._manifest = Manifest(name, split, kind, (), provenance)
        self._samples_per_shard = samples_per_shard
        self._pending: list[Sample] = []
        self._shards: list[ShardEntry] = []

    def write(self, sample: Sample) -> None:
        """Add one sample."""
        self._pending.append(sample)
        if len(self._pending) == self._samples_per_shard:
            self._flush()

    def _flush(self) -> None:
        path = self._folder / shard_name(len(self._shards))
        self._shards.append(write_shard(path, self._pending))
        self._pending = []

    def __enter__(self) -> ShardSetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            return
        if self._pending:
            self._flush()
        finish_split(self._folder, dataclasses.replace(self._manifest, shards=tuple(self._shards)))


def finish_split(folder: Path, manifest: Manifest) -> None:
    """Remove shards that an interrupted earlier attempt left beyond the manifest's, then write the manifest."""
    listed = {shard.name for shard in manifest.shards}
    for stale in folder.glob("*shard-*.tar*"):
        if stale.name not in listed:
            stale.unlink()
    manifest.write(folder)
