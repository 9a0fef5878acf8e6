"""Splits that are URLs: the manifest is fetched at the start, each shard when it is first needed, to a bounded cache.

A URL is whatever WebDataset opens: ``http://host/data/train``, ``s3://bucket/train`` or ``gs://...`` (through their own
command line tools), or a shell command in which {} stands for the file: ``pipe:aws s3 cp s3://bucket/train/{} -``. A
mirror is a folder with the manifest and the URL; shards are kept by their SHA-256, which is checked when they arrive,
so that mirrors, ranks and runs share them and none is ever read half fetched.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlparse

from webdataset import gopen

from mmjepa.data.manifest import Manifest, ShardEntry
from mmjepa.errors import UserError

_ORIGIN = "origin.json"
_CHUNK = 1 << 20
_FILE_NAME = re.compile(r"[\w.-]+")


def is_url(text: str) -> bool:
    """Whether ``text`` is no path of this machine."""
    return text.startswith("pipe:") or "://" in text


def join(root: str, path: str) -> str:
    """The URL of ``path`` below ``root``; ``path`` itself if it is a URL."""
    if is_url(path):
        return path
    return root.replace("{}", f"{path}/{{}}") if "{}" in root else f"{root.rstrip('/')}/{path}"


@lru_cache(maxsize=64)  # one fetch of a manifest a process: the data of a run do not change under it
def mirror(url: str, cache: Path, limit: int) -> Path:
    """The local folder that stands for the split at ``url``, with its manifest. Raises UserError if that fails.

    limit: bytes of shards that the ``cache`` may hold.
    """
    folder = cache / hashlib.sha256(url.encode()).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        content = b"".join(_download(_member(url, "manifest.json")))
        _replace(folder / "manifest.json", lambda path: path.write_bytes(content))
        origin = json.dumps({"url": url, "cache": str(cache), "limit": limit})
        _replace(folder / _ORIGIN, lambda path: path.write_text(origin))
    except OSError as error:
        raise UserError(f"{url}: cannot fetch its manifest.json into {folder} ({error})") from error
    for shard in Manifest.read(folder).shards:
        if not _FILE_NAME.fullmatch(shard.name):  # it becomes part of a shell command
            raise UserError(f"{url}: its manifest names a shard {shard.name!r}")
    return folder


@dataclass(frozen=True)
class Origin:
    """Where the shards of a mirror come from, and the cache that they go to."""

    url: str
    cache: str
    limit: int

    @classmethod
    def of(cls, folder: Path) -> Origin | None:
        """The origin of a mirror; None for any other folder."""
        path = folder / _ORIGIN
        return cls(**json.loads(path.read_text())) if path.is_file() else None

    def shard_url(self, name: str) -> str:
        """The URL of one shard."""
        return _member(self.url, name)

    def open(self, shard: ShardEntry) -> int:
        """A descriptor of the shard, fetched first if need be. Raises OSError, also if other bytes come than declared.

        It stays valid when the file leaves the cache.
        """
        path = Path(self.cache) / f"{shard.sha256}.tar"
        with _locked(path.with_suffix(".lock")):  # one process fetches, the others wait for it
            if not path.exists():
                _replace(path, lambda temporary: self._fetch(shard, temporary))
                self._make_room(path)
            os.utime(path)
            return os.open(path, os.O_RDONLY)

    def _fetch(self, shard: ShardEntry, path: Path) -> None:
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for chunk in _download(self.shard_url(shard.name)):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != shard.sha256:
            raise OSError("the bytes fetched are not those of the manifest's SHA-256")

    def _make_room(self, newest: Path) -> None:
        """Remove the shards that were opened longest ago until the limit holds; never the newest."""
        found = []
        for path in Path(self.cache).glob("*.tar"):
            with _gone_is_fine():
                stat = path.stat()
                found.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.limit:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                total -= size


def _member(url: str, name: str) -> str:
    return url.replace("{}", name) if "{}" in url else f"{url.rstrip('/')}/{name}"


def _download(url: str) -> Iterator[bytes]:
    """The bytes of a URL in chunks. Raises OSError if they do not all come."""
    try:
        with gopen(url) as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk
    except ValueError as error:
        raise OSError(f"{urlparse(url).scheme}: {error}") from error
    except OSError as error:  # of a command that failed, WebDataset shows the arguments as Python prints them
        failed = re.search(r"exit (-?\d+) \(read\)", str(error))
        if failed is None:
            raise
        raise OSError(f"what fetches it ended with exit code {failed[1]}") from error


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that others see it whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    """Another process may remove a file of the shared cache at any time."""
    try:
        yield
    except FileNotFoundError:
        return
