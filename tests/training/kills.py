"""Kill a training run with SIGKILL at random moments, restart it each time, compare it with one that was left alone.

    python tests/training/kills.py folder=/tmp/kills out=results/survival/kills.json [kills=20] [ranks=2] [stage=1]

Trains a nano Video-JEPA with data workers on small shards of its own, under torchrun. After every kill the rows of
metrics must be those of the undisturbed run as far as they go, bit for bit, and after the last restart the whole curve,
the exported encoder and the last checkpoint must be. It lives with the tests because it is one, of the settings that
they use; ``test_kills.py`` runs a short version.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from clips import nano_settings, write_splits
from omegaconf import MISSING
from programs import RENDEZVOUS, ROOT, read_curve

from mmjepa.config import run_program
from mmjepa.errors import UserError
from mmjepa.evaluation.results import result_path, write_results
from mmjepa.training.checkpoint import complete_checkpoints

MOMENTS = ("step", "checkpoint write", "data start-up", "checkpoint write", "any")
VICTIMS = ("one rank", "all ranks", "everything", "one rank")
STEPS_PER_KILL, ROWS = 4, 3
"""Length of the run; rows that one life adds at most, or little more: so the kills come before the end."""
PATIENCE = 900.0
"""Seconds that anything may take."""


@dataclass
class KillsConfig:
    """Schema of ``kills.yaml``."""

    kills: int = 20
    ranks: int = 2
    stage: int = 1
    seed: int = 0
    folder: str = MISSING
    out: str | None = None


@dataclass
class Kill:
    """One kill: when, whom, and in what state it left the run."""

    moment: str
    victim: str
    rows: int = 0
    """Rows of metrics that were there afterwards."""
    checkpoint: int = 0
    """Step that the restart continued from."""
    cut_off_writes: int = 0
    """Checkpoints that were being written or removed."""
    seconds_to_end: float = 0.0
    """Until the last process was gone."""


@dataclass(frozen=True)
class Clock:
    """Seconds until a run's first row, and from row to row."""

    first_row: float
    row: float


class Run:
    """A run of ``train.py`` under torchrun, and the processes it consists of."""

    def __init__(self, folder: Path, settings: list[str], ranks: int) -> None:
        self.folder = folder
        train = ["train.py", f"run={folder}", *settings]
        self.command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
        self.command += train
        self.ranks = ranks
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again."""
        environment = {name: value for name, value in os.environ.items() if name not in RENDEZVOUS}
        environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
        with self.folder.with_suffix(".log").open("a") as log:
            self.process = subprocess.Popen(self.command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        self.launcher = psutil.Process(self.process.pid)

    def trainers(self) -> list[psutil.Process]:
        """The ranks, as far as they have been started."""
        return [one for one in _children(self.launcher) if "train.py" in _command(one)]

    def workers(self) -> list[psutil.Process]:
        """Data workers of all ranks."""
        return [one for trainer in self.trainers() for one in _children(trainer) if "train.py" in _command(one)]

    def rows(self) -> int:
        """Complete rows of metrics."""
        metrics = self.folder / "metrics.jsonl"
        return metrics.read_bytes().count(b"\n") if metrics.exists() else 0

    def ended(self) -> bool:
        """Whether the launcher is gone."""
        return self.process is None or self.process.poll() is not None

    def look(self) -> None:
        """Note who is there: looking takes longer than some moments last."""
        self.seen_trainers = self.trainers()
        self.seen = [self.launcher, *_children(self.launcher, recursive=True)]

    def kill(self, victim: str, dice: random.Random) -> float:
        """SIGKILL; returns the seconds until every process of the run was gone."""
        trainers, everything = self.seen_trainers, self.seen
        chosen = {"one rank": [dice.choice(trainers)], "all ranks": trainers, "everything": everything}[victim]
        began = time.monotonic()
        for one in chosen:
            one.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)
        _, alive = psutil.wait_procs(everything, PATIENCE)
        if alive:
            raise UserError(f"{len(alive)} processes outlived the kill of {victim} by {PATIENCE:.0f} s")
        return time.monotonic() - began

    def finish(self) -> Clock:
        """Let it run to its end; returns how long things took."""
        began = time.monotonic()
        _until(lambda: self.rows() > 0, self, 0.01)
        first_row = time.monotonic() - began
        if code := self.process.wait(PATIENCE):
            raise UserError(f"{self.folder.name} ended with exit code {code}: see {self.folder.with_suffix('.log')}")
        return Clock(first_row, (time.monotonic() - began - first_row) / self.rows())

    def end(self) -> None:
        """Leave nothing behind, however this program ends."""
        if self.process is not None and self.process.poll() is None:
            self.look()
            for one in self.seen:
                one.kill()


def main(config: KillsConfig) -> None:
    """Kill a run at random moments, and compare it with one that was left alone."""
    out = None if config.out is None else result_path(config.out)
    folder, dice = Path(config.folder), random.Random(config.seed)
    folder.mkdir(parents=True)
    settings = [*nano_settings(write_splits(folder / "discs")), f"deepspeed=zero{config.stage}", "data.workers=1"]
    settings += [f"steps={STEPS_PER_KILL * (config.kills + 1)}", "checkpoint.every=2"]
    whole, cut = Run(folder / "whole", settings, config.ranks), Run(folder / "cut", settings, config.ranks)
    kills = []
    try:
        whole.start()
        clock = whole.finish()
        reference = read_curve(whole.folder)
        for number in range(config.kills):
            cut.start()
            kill = Kill(MOMENTS[number % len(MOMENTS)], dice.choice(VICTIMS))
            _wait_for(kill.moment, cut, dice, clock)
            kill.seconds_to_end = round(cut.kill(kill.victim, dice), 2)
            _note_state(kill, cut.folder, reference)
            kills.append(kill)
            print(f"kill {number + 1}: {kill}", flush=True)
        cut.start()
        cut.finish()
    finally:
        whole.end()
        cut.end()
    same = {"curve": read_curve(cut.folder) == reference, "files": _digests(cut.folder) == _digests(whole.folder)}
    print(f"{len(kills)} kills: curve {'equal' if same['curve'] else 'DIFFERS'}, files {same['files']}")
    if out:
        facts = {"steps": len(reference), "bitwise_equal": same}
        write_results(out, "kills", dataclasses.asdict(config), [dataclasses.asdict(kill) for kill in kills], facts)
    if not all(same.values()):
        raise UserError(f"the run that was killed is not the run that was left alone: {same}")


def _wait_for(moment: str, run: Run, dice: random.Random, clock: Clock) -> None:
    """Return at a random time within ``moment``."""
    begins_at = _last_step(run.folder)
    _until(lambda: len(run.trainers()) == run.ranks, run, 0.05)
    if moment == "any":
        then = time.monotonic() + dice.uniform(0, 1.2 * clock.first_row)
        _until(lambda: time.monotonic() > then or run.rows() >= begins_at + ROWS, run, 0.01)
    else:
        _until(lambda: len(run.workers()) >= run.ranks, run, 0.05)
    run.look()
    if moment == "data start-up":
        time.sleep(dice.uniform(0, 2 * clock.row))
    elif moment == "step":
        rows = begins_at + dice.randint(1, ROWS)  # those beyond the checkpoint went when the workers started
        _until(lambda: run.rows() >= rows, run, 0.01)
        time.sleep(dice.uniform(0, clock.row))
    elif moment == "checkpoint write":
        _until(lambda: any(run.folder.glob("checkpoints/*.tmp")), run, 0.001)
        time.sleep(dice.uniform(0, 0.02))


def _until(condition: Callable[[], bool], run: Run, every: float) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if run.ended() or time.monotonic() > deadline:
            raise UserError(f"{run.folder.name} ended, or did not come so far: see {run.folder.with_suffix('.log')}")
        time.sleep(every)


def _note_state(kill: Kill, folder: Path, reference: list[dict[str, Any]]) -> None:
    """Fill in what the kill left; raises UserError if rows differ from the reference."""
    checkpoints = folder / "checkpoints"
    kill.checkpoint = _last_step(folder)
    kill.cut_off_writes = len(list(checkpoints.glob("step-*"))) - len(complete_checkpoints(checkpoints))
    rows = list(_complete_rows(folder))
    kill.rows = len(rows)
    if rows != reference[: len(rows)]:
        raise UserError(f"rows differ from those of the undisturbed run after {kill}")


def _complete_rows(folder: Path) -> Iterator[dict[str, Any]]:
    metrics = folder / "metrics.jsonl"
    if metrics.exists():
        text = metrics.read_text()
        metrics.with_name("complete.jsonl").write_text(text[: text.rfind("\n") + 1])
        yield from read_curve(folder, "complete.jsonl")


def _last_step(folder: Path) -> int:
    found = complete_checkpoints(folder / "checkpoints")
    return int(found[-1].name.removeprefix("step-")) if found else 0


def _digests(folder: Path) -> dict[str, str]:
    files = sorted([*folder.glob("encoder/*.safetensors"), *folder.glob("checkpoints/*/*.safetensors")])
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _children(process: psutil.Process, recursive: bool = False) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=recursive))
    except psutil.NoSuchProcess:
        return []


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


if __name__ == "__main__":
    run_program("kills", KillsConfig, main, config_dir=Path(__file__).parent)
