"""Shard sets and their manifests: exact contents, unfinished when interrupted, refused when damaged."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from mmjepa.data.manifest import Manifest, Provenance, ShardSetWriter
from mmjepa.data.samples import Sample, UnusableSample, checksum
from mmjepa.data.shards import ShardedSplit
from mmjepa.errors import UserError

MADE_BY = Provenance("test", {"n": 7}, 0, {}, "unknown")


def _writer(folder: Path, per_shard: int = 3) -> ShardSetWriter:
    return ShardSetWriter(
        folder, name="toy", split="train", kind="video", provenance=MADE_BY, samples_per_shard=per_shard
    )


def _sample(number: int) -> Sample:
    return Sample(f"clip-{number}", bytes([number]) * 10, "mp4", {"label": number, "captions": ["één clip"]})


def _write(folder: Path, samples: Iterable[Sample]) -> None:
    with _writer(folder) as writer:
        for sample in samples:
            writer.write(sample)


def test_samples_come_in_shards_with_digests(tmp_path: Path) -> None:
    _write(tmp_path, map(_sample, range(7)))
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert (content["format"], content["samples"], content["kind"]) == (1, 7, "video")
    assert [(s["name"], s["samples"]) for s in content["shards"]] == [
        ("shard-000000.tar", 3),
        ("shard-000001.tar", 3),
        ("shard-000002.tar", 1),
    ]
    for shard in content["shards"]:
        stored = (tmp_path / shard["name"]).read_bytes()
        assert (shard["bytes"], shard["sha256"]) == (len(stored), hashlib.sha256(stored).hexdigest())
    with tarfile.open(tmp_path / "shard-000001.tar") as shard_file:
        assert shard_file.getnames() == [f"clip-{n}.{end}" for n in (3, 4, 5) for end in ("json", "mp4")]
        meta = json.load(shard_file.extractfile("clip-4.json"))  # type: ignore[arg-type]
        assert meta.pop("crc32") == checksum(shard_file.extractfile("clip-4.mp4").read(), meta)  # type: ignore[union-attr]
        assert meta == {"label": 4, "captions": ["één clip"]}
    assert Manifest.read(tmp_path).fingerprint == content["fingerprint"]


@pytest.mark.parametrize(
    ("old", "new", "good"),
    [
        (b"", b"", True),
        (b'{"captions":["\xc3\xa9\xc3\xa9n clip"],"crc32"', b'{"captions":["\xc3\xa9\xc3\xa9n clap"],"crc32"', False),
        (b'"label":4', b'"label":5', False),
        (b'"crc32":', b'"crc32":1', False),
        (b'":4}', b'": 4}', True),  # another layout of the same JSON
    ],
)
def test_the_checksum_is_of_what_the_json_says(tmp_path: Path, old: bytes, new: bytes, good: bool) -> None:
    """Of stored bytes where they are as written, and of their content where a program has laid them out anew."""
    _write(tmp_path, map(_sample, range(5)))
    shard = tmp_path / "shard-000001.tar"
    packed = io.BytesIO()
    with tarfile.open(shard) as source, tarfile.open(fileobj=packed, mode="w") as target:
        for member in source:
            content = source.extractfile(member).read()  # type: ignore[union-attr]
            if member.name == "clip-4.json":
                assert old in content
                content = content.replace(old, new, 1) if old else content
            member.size = len(content)
            target.addfile(member, io.BytesIO(content))
    shard.write_bytes(packed.getvalue())
    split = ShardedSplit(tmp_path)
    if good:
        assert split.read(4).meta == {"label": 4, "captions": ["één clip"]}
    else:
        with pytest.raises(UnusableSample, match="checksum"):
            split.read(4)


def test_the_fingerprint_depends_on_the_data_alone(tmp_path: Path) -> None:
    for name, count in (("a", 7), ("b", 7), ("c", 6)):
        _write(tmp_path / name, map(_sample, range(count)))
    prints = [Manifest.read(tmp_path / name).fingerprint for name in "abc"]
    assert prints[0] == prints[1] != prints[2]


def test_an_interruption_leaves_no_manifest(tmp_path: Path) -> None:
    def interrupted() -> Iterator[Sample]:
        yield from map(_sample, range(4))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _write(tmp_path, interrupted())
    with pytest.raises(UserError, match="interrupted"):
        Manifest.read(tmp_path)
    _write(tmp_path, map(_sample, range(2)))
    assert Manifest.read(tmp_path).samples == 2


def test_a_finished_split_is_not_overwritten(tmp_path: Path) -> None:
    _write(tmp_path, map(_sample, range(2)))
    with pytest.raises(UserError, match="already holds a finished split"):
        _writer(tmp_path)


def test_keys_with_dots_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dot"), _writer(tmp_path, per_shard=1) as writer:
        writer.write(Sample("clip_1.5s", b"", "mp4", {}))


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"samples": 7', '"samples": 8'),
        lambda text: text.replace('"format": 1', '"format": 2'),
        lambda text: text.replace('"kind": "video"', '"kind": "audio"'),
        lambda text: text.replace('"shards"', '"shard"'),
        lambda text: "[]",
    ],
)
def test_a_damaged_manifest_is_one_clear_error(tmp_path: Path, damage: object) -> None:
    _write(tmp_path, map(_sample, range(7)))
    path = tmp_path / "manifest.json"
    path.write_text(damage(path.read_text()))  # type: ignore[operator]
    with pytest.raises(UserError, match=r"manifest\.json") as error:
        Manifest.read(tmp_path)
    assert "\n" not in str(error.value)
