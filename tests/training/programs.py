"""Training programs started in processes of their own, and the curves they leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toy import ToyTask

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TIMINGS = {"seconds_per_step", "clips_per_s", "data_wait", "flops_per_s", "flops_share"}

RENDEZVOUS = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
"""What the test process's own group puts into the environment, and its children must not inherit."""

Train = Callable[..., ToyTask]


def read_curve(run: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """Rows of a run's metrics without what depends on the clock."""
    rows = [json.loads(line) for line in (run / name).read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMINGS} for row in rows]


def start(program: Path, *arguments: str, ranks: int = 1, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a training program in processes of its own; with more than one rank under torchrun."""
    launcher = [sys.executable]
    if ranks > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    inherited = {name: value for name, value in os.environ.items() if name not in RENDEZVOUS}
    return subprocess.run(
        [*launcher, str(program), *arguments],
        cwd=ROOT,
        env={**inherited, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=400,
    )
