"""A source that is a URL gives the batches that the same split gives from disk."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch
from numbered_clips import write_split

from mmjepa.data import remote
from mmjepa.data.config import DataConfig
from mmjepa.data.manifest import Manifest
from mmjepa.data.quarantine import Quarantine
from mmjepa.data.samples import Sample
from mmjepa.data.stream import TrainStream
from mmjepa.errors import UserError

MakeConfig = Callable[..., DataConfig]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, videos: Path) -> Iterator[tuple[str, Path]]:
    """A copy of the split on a web server: its URL, and its folder."""
    folder = tmp_path / "served" / "videos"
    shutil.copytree(videos, folder)
    handler = functools.partial(_Quiet, directory=str(folder.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


@pytest.fixture(autouse=True)
def fresh_mirrors() -> None:
    remote.mirror.cache_clear()


def take(config: DataConfig, count: int, **options: object) -> list[tuple[list[str], torch.Tensor]]:
    stream = TrainStream(config, seed=0, global_batch=4, **options)  # type: ignore[arg-type]
    return [(batch.keys, batch.pixels) for batch in islice(stream, count)]


def assert_same(left: list[tuple[list[str], torch.Tensor]], right: list[tuple[list[str], torch.Tensor]]) -> None:
    assert [keys for keys, _ in left] == [keys for keys, _ in right]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(left, right, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("scheme", ["http", "pipe", "file"])
def test_urls_give_what_the_disk_gives(
    served: tuple[str, Path], videos: Path, make_config: MakeConfig, tmp_path: Path, scheme: str, workers: int
) -> None:
    url, folder = served
    root = {"http": url, "pipe": f"pipe:cat {folder.parent}/{{}}", "file": f"file://{folder.parent}"}[scheme]
    changes = {"root": root, "cache": str(tmp_path / "cache"), "workers": workers}
    config = make_config({"v": (Path("videos"), 1.0)}, **changes)
    config.check_sources()
    assert_same(take(config, 6), take(make_config({"v": (videos, 1.0)}), 6))
    shutil.rmtree(folder)
    (folder.parent / "videos").mkdir()
    shutil.copy(videos / "manifest.json", folder)
    assert_same(take(config, 6), take(make_config({"v": (videos, 1.0)}), 6))  # all from the cache


def test_the_cache_keeps_its_limit(served: tuple[str, Path], make_config: MakeConfig, tmp_path: Path) -> None:
    url, folder = served
    limit = 1.5 * (folder / "shard-000000.tar").stat().st_size
    config = make_config({"v": (Path("videos"), 1.0)}, root=url, cache=str(tmp_path / "c"), cache_gigabytes=limit / 1e9)
    keys = [key for batch, _ in take(config, 12) for key in batch]
    assert len(set(keys)) == 12
    assert sum(path.stat().st_size for path in (tmp_path / "c").glob("*.tar")) <= limit


@pytest.mark.parametrize("trouble", ["missing", "other bytes", "cut"])
def test_a_shard_that_cannot_be_had_is_named_and_replaced(
    served: tuple[str, Path], make_config: MakeConfig, tmp_path: Path, trouble: str
) -> None:
    url, folder = served
    shard = folder / "shard-000001.tar"
    data = shard.read_bytes()
    shard.unlink()
    if trouble != "missing":
        shard.write_bytes(data[:-3000] if trouble == "cut" else data[:3000] + b"x" + data[3001:])
    config = make_config({"v": (Path("videos"), 1.0)}, root=url, cache=str(tmp_path / "cache"))
    batches = take(config, 9, quarantine=Quarantine(tmp_path / "quarantine.jsonl"))
    assert {key for keys, _ in batches for key in keys} == {f"clip-{n:03d}" for n in (0, 1, 2, 3, 8, 9, 10, 11)}
    (row,) = (json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines())
    assert (row["shard"], row["key"]) == (f"{url}/videos/shard-000001.tar", None)
    assert row["reason"].startswith("shard cannot be fetched: ")
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 2


def test_a_shard_damaged_at_its_origin_loses_only_what_is_damaged(
    served: tuple[str, Path], make_config: MakeConfig, tmp_path: Path, twelve_videos: list[Sample]
) -> None:
    """The manifest promises four samples, and the shard that it describes holds three."""
    url, folder = served
    shutil.rmtree(folder)
    write_split(folder, twelve_videos[:4])
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"samples": 4', '"samples": 5'))
    config = make_config({"v": (Path("videos"), 1.0)}, root=url, cache=str(tmp_path / "cache"))
    keys = {key for keys, _ in take(config, 6) for key in keys}
    assert keys == {sample.key for sample in twelve_videos[:4]}


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("http://127.0.0.1:9", r"cannot fetch its manifest.json into .* \(what fetches it ended with exit code 7\)"),
        ("nonsense://host", "cannot fetch its manifest.json into .*nonsense"),
        ("pipe:false {}", r"cannot fetch its manifest.json into .* \(what fetches it ended with exit code 1\)"),
    ],
)
def test_an_absent_url_is_one_clear_error(tmp_path: Path, make_config: MakeConfig, root: str, message: str) -> None:
    config = make_config({"v": (Path("videos"), 1.0)}, root=root, cache=str(tmp_path / "cache"))
    with pytest.raises(UserError, match=message) as caught:
        config.check_sources()
    assert "\n" not in str(caught.value)


def test_shard_names_cannot_run_commands(served: tuple[str, Path], make_config: MakeConfig, tmp_path: Path) -> None:
    url, folder = served
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace("shard-000001.tar", "'; touch x; '"))
    assert Manifest.read(folder).shards[1].name == "'; touch x; '"
    config = make_config({"v": (Path("videos"), 1.0)}, root=url, cache=str(tmp_path / "cache"))
    with pytest.raises(UserError, match="names a shard"):
        config.check_sources()
