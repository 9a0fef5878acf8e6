"""Worker processes end with the process that they work for, and outlive what would bring them down."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import pytest

from mmjepa.data import loading, video
from mmjepa.data.config import DataConfig
from mmjepa.data.quarantine import Quarantine
from mmjepa.data.samples import Sample, UnusableSample
from mmjepa.data.stream import TrainStream

MakeConfig = Callable[..., DataConfig]
PROGRAM = """
import multiprocessing, time
from mmjepa.data.workers import DecodingBatches, ordered_batches

class Large(DecodingBatches):  # more than a pipe holds: the worker waits in the middle of handing over
    def __getitem__(self, request): return bytes(1 << 20)
    def __len__(self): return 1000

batches = ordered_batches(Large([]), range(1000), workers=1, prefetch=2)
next(batches)
print(multiprocessing.active_children()[0].pid, flush=True)
time.sleep(60)
"""


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_workers_do_not_outlive_a_killed_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    time.sleep(1)  # until its queue is full
    assert running(worker)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 3
    while running(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    survived = running(worker)
    if survived:
        os.kill(worker, signal.SIGKILL)
    assert not survived


def crash(signal_number: int) -> None:
    os.kill(os.getpid(), signal_number)


def hang() -> None:
    time.sleep(600)


def refuse() -> None:
    raise UnusableSample("damaged")


def keys_when(
    happens: Callable[[], None], split: Path, config: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[str], dict[str, str]]:
    """Keys of ten batches, and reasons by key, where that ``happens`` whenever clip-005 is decoded."""
    decode = loading.decode

    def troubled(sample: Sample, choose: Callable, decoder: str) -> object:
        if sample.key == "clip-005":
            happens()
        return decode(sample, choose, decoder)

    path = split.parent / "troubled.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(loading, "decode", troubled)
        stream = TrainStream(config, seed=0, global_batch=4, quarantine=Quarantine(path))
        keys = [key for batch in islice(stream, 10) for key in batch.keys]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.unlink()
    return keys, {row["key"]: row["reason"] for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("happens", "reason"),
    [
        (partial(crash, signal.SIGSEGV), "decoding ended the worker process (SIGSEGV)"),
        (partial(crash, signal.SIGKILL), "decoding ended the worker process (SIGKILL)"),
        (hang, "decoding did not end within 6 s"),
    ],
)
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_a_sample_that_brings_its_worker_down_is_replaced_like_a_damaged_one(
    videos: Path,
    make_config: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
    happens: Callable[[], None],
    reason: str,
) -> None:
    monkeypatch.setattr(video, "DECODE_SECONDS", 4.0)
    config = make_config({"v": (videos, 1.0)}, workers=2)
    keys, reasons = keys_when(happens, videos, config, monkeypatch)
    assert reasons == {"clip-005": reason}
    expected, _ = keys_when(refuse, videos, make_config({"v": (videos, 1.0)}), monkeypatch)
    assert keys == expected


def test_a_worker_that_ends_while_it_decodes_nothing_is_an_error(videos: Path, make_config: MakeConfig) -> None:
    """Nothing says what ended it, so nothing can be left out."""
    stream = TrainStream(make_config({"v": (videos, 1.0)}, workers=1, prefetch=1), seed=0, global_batch=4)
    batches = iter(stream)
    next(batches)
    time.sleep(1)  # until its queue is full
    for process in multiprocessing.active_children():
        process.kill()
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        deque(batches, maxlen=0)
