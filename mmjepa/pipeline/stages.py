"""Stages: commands that leave a marker when they are done, run side by side where their inputs are there.

A stage is skipped if its marker exists, the same command made it, and everything it needs was skipped too; training
continues from its checkpoint by itself: so the same stages start again where they were cut off.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from mmjepa.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.2
NEWS_SECONDS = 30.0
GRACE_SECONDS = 60.0
"""For training to reach its next row of metrics and save."""
TAIL_LINES = 25


@dataclass(frozen=True)
class Stage:
    """A command that leaves ``marker`` behind when it is done (None: it is cheap, and run every time)."""

    name: str
    command: list[str]
    needs: tuple[str, ...] = ()
    marker: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def marked(self) -> bool:
        """Whether the stage has left its marker."""
        return self.marker is not None and (ROOT / self.marker).exists()

    def settings(self) -> list[str]:
        """What the result depends on: the command without its place in the network."""
        port = self.command.index("--master_port") if "--master_port" in self.command else None
        return self.command[1:] if port is None else self.command[1:port] + self.command[port + 2 :]

    def shown(self) -> str:
        """The command as a user would type it."""
        program = Path(self.command[0])
        name = "python" if self.command[0] == sys.executable else program.name
        return shlex.join([name, *self.command[1:]])


class StageFailed(Exception):
    """Stages ended with an error; the message holds the end of each log."""


def finished_stages(stages: Sequence[Stage], logs: Path) -> set[str]:
    """Names of the stages that need not run again.

    Raises UserError if a stage was finished with other settings: its results would be taken for those of these.
    """
    named = {stage.name: stage for stage in stages}
    unchanged = {stage.name for stage in stages if stage.marker is None or _made_by_this(stage, logs)}

    def kept(name: str) -> bool:
        return name in unchanged and all(kept(need) for need in named[name].needs)

    return {stage.name for stage in stages if stage.marker is not None and kept(stage.name)}


def _made_by_this(stage: Stage, logs: Path) -> bool:
    """Whether the stage's marker is there and was left by its command. Raises UserError if another one left it."""
    record = _record(logs, stage)
    if not (stage.marked and record.exists()):
        return False
    made, asked = json.loads(record.read_text()), stage.settings()
    if made != asked:
        was, now = sorted(set(made) - set(asked)), sorted(set(asked) - set(made))
        raise UserError(
            f"{stage.marker} was made with other settings ({' '.join(was) or 'fewer'} there, "
            f"{' '.join(now) or 'fewer'} here): give another work=..."
        )
    return True


def run_stages(stages: Sequence[Stage], jobs: int, logs: Path) -> None:
    """Run every stage that is not finished, at most ``jobs`` at a time, printing each command before it starts.

    A stage fails that returns an error or does not leave its marker. What needs it is left out, all else still runs:
    one run of a study of days must not take the others with it. Raises StageFailed in the end if any did, UserError as
    :func:`finished_stages` does.
    """
    done = finished_stages(stages, logs)
    logs.mkdir(parents=True, exist_ok=True)
    threads = {"OMP_NUM_THREADS": str(max(1, cores() // jobs)), "PYTHONUNBUFFERED": "1"}
    environment = {**os.environ, **threads}
    waiting = [stage for stage in stages if stage.name not in done]
    if done:
        print(f"{_clock()} already done: {', '.join(stage.name for stage in stages if stage.name in done)}", flush=True)
    running: list[_Running] = []
    failures: dict[str, str] = {}
    news = time.monotonic() + NEWS_SECONDS
    try:
        while True:
            waiting = _without_those_that_need(failures, waiting)
            if not waiting and not running:
                break
            for stage in [stage for stage in waiting if done.issuperset(stage.needs)][: jobs - len(running)]:
                waiting.remove(stage)
                _record(logs, stage).unlink(missing_ok=True)
                running.append(_Running(stage, logs / f"{stage.name}.log", environment))
            for process in [process for process in running if process.ended()]:
                running.remove(process)
                stage = process.stage
                if (failure := process.failure()) is None:
                    done.add(stage.name)
                    _record(logs, stage).write_text(json.dumps(stage.settings()))
                else:
                    failures[stage.name] = failure
                    _stop([process])  # a launcher that died may have left its trainers behind
            if time.monotonic() > news:
                news += NEWS_SECONDS
                for process in running:
                    process.report()
            time.sleep(POLL_SECONDS)
    finally:
        _stop(running)
    if failures:
        left = [stage.name for stage in stages if stage.name not in done | failures.keys()]
        waits = [f"not run, for they need it: {', '.join(left)}"] if left else []
        raise StageFailed("\n\n".join([*failures.values(), *waits]))


def _without_those_that_need(failed: Iterable[str], stages: Sequence[Stage]) -> list[Stage]:
    """The stages that need none of the failed ones, directly or through others."""
    lost = set(failed)
    while more := {stage.name for stage in stages if lost.intersection(stage.needs)} - lost:
        lost |= more
    return [stage for stage in stages if stage.name not in lost]


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Inside the block SIGTERM ends the program as Ctrl-C does, so that stages are stopped on the way out."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Running:
    """A stage's process, in a session of its own so that its children can be stopped with it."""

    def __init__(self, stage: Stage, log: Path, environment: Mapping[str, str]) -> None:
        self.stage, self.log, self._start = stage, log, time.monotonic()
        print(f"{_clock()} {stage.name}: {stage.shown()}", flush=True)
        with log.open("w") as file:
            self._process = subprocess.Popen(
                stage.command,
                cwd=ROOT,
                env={**stage.environment, **environment},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ended(self) -> bool:
        """Whether it has ended, well or not."""
        return self._process.poll() is not None

    def failure(self) -> str | None:
        """What went wrong with a stage that has ended; None if nothing did."""
        code, name, failure = self._process.returncode, self.stage.name, None
        if code != 0:
            failure = f"stage {name} ended with code {code}; the end of {self.log}:\n{self._tail(TAIL_LINES)}"
        elif self.stage.marker is not None and not self.stage.marked:
            failure = f"stage {name} ended without writing {self.stage.marker}; see {self.log}"
        how = "done in" if failure is None else f"FAILED ({self.log}) after"
        print(f"{_clock()} {name}: {how} {_minutes(time.monotonic() - self._start)}", flush=True)
        return failure

    def report(self) -> None:
        """Print the last line of its log."""
        print(f"{_clock()}   {self.stage.name}: {self._tail(1).strip()[:160]}", flush=True)

    def signal(self, number: int) -> bool:
        """Send a signal (0: none) to the process and its children; whether any of them is left."""
        self._process.poll()  # reaps the process itself, which would count as left otherwise
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return False
        return True

    def wait(self) -> None:
        """Wait for the process itself."""
        self._process.wait()

    def _tail(self, lines: int) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def _stop(running: Sequence[_Running]) -> None:
    """Ask all to end, and end what is left after the grace period the hard way. A second signal does not cut it short.

    A launcher ends at once and leaves its trainer saving: what is waited for is the whole session of each stage.
    """
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    deadline = time.monotonic() + GRACE_SECONDS
    left = [process for process in running if process.signal(signal.SIGTERM)]
    while left and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        left = [process for process in left if process.signal(0)]
    for process in left:
        process.signal(signal.SIGKILL)
        process.wait()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _record(logs: Path, stage: Stage) -> Path:
    """Where the settings of a finished stage are noted."""
    return logs / f"{stage.name}.settings.json"


_STARTED = time.monotonic()


def _clock() -> str:
    return f"[{_minutes(time.monotonic() - _STARTED):>6}]"


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
