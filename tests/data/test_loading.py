"""Worker processes end with the process that they work for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import torch
from torch.utils.data import Dataset
from mmjepa.data.loading import ordered_loader

class Large(Dataset):  # more than a pipe holds: the worker waits in the middle of handing over
    def __getitem__(self, request): return bytes(1 << 20)
    def __len__(self): return 1000

batches = iter(ordered_loader(Large(), range(1000), workers=1, prefetch=2))
next(batches)
print(batches._workers[0].pid, flush=True)
import time; time.sleep(60)
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
