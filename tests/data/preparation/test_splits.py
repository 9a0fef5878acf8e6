"""Making shards: kept when interrupted, divided over processes and machines, the same whatever way they were made."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import layouts
import pytest

from mmjepa.config import load_config
from mmjepa.data.manifest import Manifest
from mmjepa.data.preparation import engines, splits
from mmjepa.data.preparation.options import VideoPreparationConfig
from mmjepa.data.preparation.work import ShardTask, make_shard
from mmjepa.data.shards import ShardedSplit
from mmjepa.data.sources.diving48 import write_diving48
from mmjepa.errors import UserError

ROOT = Path(__file__).parents[3]
TRAIN, TEST = "diving48-train", "diving48-test"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Diving-48 in miniature: six training videos, three of the test; tests must not change it."""
    folder = tmp_path_factory.mktemp("diving48")
    layouts.diving48(folder)
    return folder


def arguments(raw: Path, out: Path, *more: str) -> list[str]:
    return [f"raw={raw}", f"out={out}", "counts=any", "samples_per_shard=1", *more]


def write(raw: Path, out: Path, *more: str) -> dict[str, str]:
    """Run the program in this process and return {split: fingerprint} of what is finished."""
    write_diving48(load_config("diving48_data", VideoPreparationConfig, arguments(raw, out, *more)))
    return fingerprints(out)


def fingerprints(out: Path) -> dict[str, str]:
    return {path.parent.name: Manifest.read(path.parent).fingerprint for path in out.glob("*/manifest.json")}


@pytest.fixture(scope="module")
def whole(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Fingerprints of a run that nothing disturbed."""
    return write(raw, tmp_path_factory.mktemp("whole"))


def test_an_interrupted_run_goes_on_with_what_it_lacks(
    raw: Path, whole: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def interrupted(task: ShardTask) -> Any:
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append(task.path.name)
        return make_shard(task)

    monkeypatch.setattr(splits, "make_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(raw, tmp_path)
    assert fingerprints(tmp_path) == {}
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/shard-*.tar")}
    assert len(kept) == 4
    monkeypatch.undo()
    assert write(raw, tmp_path) == whole
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert not list(tmp_path.glob("*/.*"))


def is_running(process: str) -> bool:
    """Whether the process of this id is there and not a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_a_killed_program_leaves_no_workers_and_goes_on_with_what_it_lacks(
    raw: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    """kill -9 of the program alone, in the middle; a worker that lived on would write beside the next run."""
    program = [sys.executable, str(ROOT / "data_prep" / "diving48.py"), *arguments(raw, tmp_path, "processes=2")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = subprocess.Popen(program, env=environment, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: list(tmp_path.glob("*/.finished/*.json")))
        workers = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    assert len(workers) >= 2
    wait_for(lambda: not any(map(is_running, workers)))
    assert fingerprints(tmp_path) == {}
    shards = [path.parents[1] / f"{path.stem}.tar" for path in tmp_path.glob("*/.finished/*.json")]
    kept = {path: path.stat().st_mtime_ns for path in shards}
    assert 1 <= len(kept) < 9
    assert write(raw, tmp_path) == whole
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_parts_of_an_array_make_what_one_run_makes(raw: Path, whole: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="9 shards are not made yet"):
        write(raw, tmp_path, "shard=finish")
    assert write(raw, tmp_path, "shard=1/2") == {}
    assert len(list(tmp_path.glob("*/shard-*.tar"))) == 4
    with pytest.raises(UserError, match=r"5 shards are not made yet, e.g. .*shard-000000.tar: run the parts"):
        write(raw, tmp_path, "shard=finish")
    assert write(raw, tmp_path, "shard=0/2") == {}
    assert write(raw, tmp_path, "shard=finish") == whole


def test_the_seed_orders_and_nothing_else_does(raw: Path, whole: dict[str, str], tmp_path: Path) -> None:
    other = write(raw, tmp_path, "seed=1")
    assert other[TRAIN] != whole[TRAIN]
    keys = [ShardedSplit(tmp_path / TRAIN).key(index) for index in range(6)]
    assert keys != sorted(keys)


def test_a_finished_split_is_left_alone_and_never_mixed_with_another(
    raw: Path, whole: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert write(raw, tmp_path) == whole
    monkeypatch.setattr(splits, "make_shard", None)
    assert write(raw, tmp_path) == whole
    with pytest.raises(UserError, match="already holds a split of other settings"):
        write(raw, tmp_path, "video.crf=30")
    (tmp_path / TRAIN / "shard-000002.tar").unlink()
    with pytest.raises(UserError, match=r"shard-000002.tar: missing or not of the size"):
        write(raw, tmp_path)


def test_shards_of_other_settings_are_not_taken_for_finished(raw: Path, tmp_path: Path) -> None:
    write(raw, tmp_path, "shard=0/2")
    with pytest.raises(UserError, match="holds shards of other settings"):
        write(raw, tmp_path, "video.crf=30")


def test_missing_and_corrupt_videos(
    raw: Path, whole: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, out = tmp_path / "raw", tmp_path / "data"
    layouts.diving48(mine)
    corrupt = mine / "rgb" / "4RTPdgoLHJU_00002.mp4"
    video = corrupt.read_bytes()
    corrupt.write_bytes(b"not a video")
    (mine / "rgb" / "4RTPdgoLHJU_00004.mp4").unlink()
    with pytest.raises(UserError, match=r"diving48-train: 1 of 6 files are missing, e.g. 4RTPdgoLHJU_00004"):
        write(mine, out)
    layouts.put(mine / "rgb" / "4RTPdgoLHJU_00004.mp4", layouts.tiny_video(4))
    with pytest.raises(UserError, match=r"1 of 6 files cannot be used, e.g. rgb/4RTPdgoLHJU_00002.mp4 \(does not"):
        write(mine, out)
    assert not (out / TRAIN / "manifest.json").exists()
    listed = [json.loads(line) for line in (out / TRAIN / "left-out.jsonl").read_text().splitlines()]
    assert [(one["id"], one["file"]) for one in listed] == [("4RTPdgoLHJU_00002", "rgb/4RTPdgoLHJU_00002.mp4")]
    skipped = tmp_path / "skipped"
    write(mine, skipped, "missing=skip")
    present = Manifest.read(skipped / TRAIN)
    assert (present.samples, present.provenance.arguments["left_out"]) == (5, {"missing": 0, "unreadable": 1})
    assert len(ShardedSplit(skipped / TRAIN)) == 5
    corrupt.write_bytes(video)  # a mended file is looked at again
    assert write(mine, out) == whole
    assert not (out / TRAIN / "left-out.jsonl").exists()


def test_nothing_usable_is_an_error(raw: Path, tmp_path: Path) -> None:
    layouts.diving48(tmp_path / "raw")
    for path in (tmp_path / "raw" / "rgb").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="not one of its 6 files can be used"):
        write(tmp_path / "raw", tmp_path / "data", "missing=skip")
    (tmp_path / "videos").mkdir()
    with pytest.raises(UserError, match="none of the files that the annotations name are in"):
        write(raw, tmp_path / "other", "missing=skip", f"videos={tmp_path / 'videos'}")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_place_that_cannot_be_written_is_one_line(raw: Path, tmp_path: Path, processes: int) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot make out=.*file/data: Not a directory \(.*") as caught:
        write(raw, tmp_path / "file" / "data", f"processes={processes}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("shard=2/2", "shard=2/2: must be i/n"),
        ("shard=last", "shard=last: must be i/n"),
        ("engine=spark", "engine=spark: choose processes or ray"),
        ("missing=ignore", "missing=ignore: choose refuse or skip"),
        ("counts=none", "counts=none: choose published or any"),
        ("processes=0", "samples_per_shard and processes must be at least 1"),
        ("video.mode=vp9", "video.mode=vp9: choose h264 or copy"),
        ("video.short_side=4", "video.short_side=4: must be at least 16"),
        ("video.crf=99", "video.crf=99 in 0..51"),
        ("still.quality=3", "still"),
    ],
)
def test_impossible_settings_are_refused(raw: Path, tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        write(raw, tmp_path, change)


def test_ray_that_is_not_installed_is_one_line(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"engine=ray needs Ray: pip install 'mmjepa\[ray\]'"):
        write(raw, tmp_path, "engine=ray")


class FakeRay:
    """As much of Ray as the engine uses; tasks run when they are waited for, the latest first."""

    def __init__(self) -> None:
        self.most = 0

    def is_initialized(self) -> bool:
        return True

    def remote(self, function: Any) -> Any:
        return type("Remote", (), {"remote": staticmethod(lambda task: (function, task))})

    def wait(self, running: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        self.most = max(self.most, len(running))
        return running[-num_returns:], running[:-num_returns]

    def get(self, reference: Any) -> Any:
        function, task = reference
        return function(task)


def test_ray_does_the_same_work_in_another_order(
    raw: Path, whole: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeRay()
    monkeypatch.setattr(engines, "_import_ray", lambda: fake)
    assert write(raw, tmp_path, "engine=ray", "processes=3") == whole
    assert fake.most == 3
