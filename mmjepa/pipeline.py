"""The whole story as commands: shards -> pretraining -> text heads -> retrieval -> probes -> report.

Each stage is a command that anybody could type, a marker file that says it is done, and a log. Stages whose inputs are
there run side by side. A stage is skipped if its marker exists, the same command made it, and everything it needs was
skipped too; training continues from its checkpoint by itself: so the same story starts again where it was cut off.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from omegaconf import MISSING

from mmjepa.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
POLL_SECONDS = 0.2
NEWS_SECONDS = 30.0
GRACE_SECONDS = 60.0
"""For training to reach its next row of metrics and save."""
TAIL_LINES = 25
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
"""For training: glibc otherwise returns large tensors to the system and faults their pages in anew, a tenth to a half
of a step. Not for evaluation, whose shapes change and whose heap would crumble."""


@dataclass
class StageArguments:
    """Extra ``key=value`` for the program of each kind of stage: what a budget changes of the programs' defaults."""

    data: list[str] = field(default_factory=list)
    train: list[str] = field(default_factory=list)
    align: list[str] = field(default_factory=list)
    retrieval: list[str] = field(default_factory=list)
    probe: list[str] = field(default_factory=list)


@dataclass
class PipelineConfig:
    """What is trained and how much of it. Relative paths start at the root of the source tree.

    work: folder for everything. variants: options of ``configs/experiment/<experiments>/``. seeds: pretraining seeds.
    jobs: stages at a time; 0 is one per core. fills: what stands in for lost frames in retrieval.
    """

    work: str = MISSING
    experiments: str = MISSING
    variants: list[str] = MISSING
    seeds: list[int] = MISSING
    jobs: int = 0
    fills: list[str] = MISSING
    arguments: StageArguments = field(default_factory=StageArguments)

    def __post_init__(self) -> None:
        if self.jobs < 0:
            raise UserError(f"jobs={self.jobs}: give a number of stages at a time, or 0 for one per core")
        if self.variants != MISSING and not (self.variants and self.seeds):
            raise UserError("variants and seeds need at least one entry each")


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
    """A stage ended with an error; the message holds the end of its log."""


@dataclass(frozen=True)
class Encoder:
    """One encoder of the tables: how the programs are told to build it, the fills it cannot do, and whether its probes
    have controls (a control has none of its own: raw patches would take as long as all other stages together)."""

    name: str
    seed: int
    needs: str
    arguments: list[str]
    lacks: tuple[str, ...] = ()
    controlled: bool = True

    @property
    def label(self) -> str:
        """Unique name in stages and files."""
        return f"{self.name}-{self.seed}"


def story(config: PipelineConfig) -> list[Stage]:
    """All stages, in an order in which each comes after what it needs."""
    work = Path(config.work)
    data = work / "data"
    stages = [
        Stage("data", _python("data_prep/sprites.py", f"out={data}", *config.arguments.data))
    ]  # skips finished splits itself
    encoders = _encoders(config, work)
    ports = _free_ports(len(config.variants) * len(config.seeds) + len(encoders))
    for seed in config.seeds:
        stages += [_pretraining(config, variant, seed, work, data, next(ports)) for variant in config.variants]
    measured = []
    texts: tuple[str, ...] = ()
    for encoder in encoders:
        # The first text head embeds the captions for all: the others wait for it instead of doing it beside it.
        align = _alignment(config, encoder, work, data, next(ports), texts)
        texts = texts or (align.name,)
        retrieval, probe = _evaluations(config, encoder, align.name, work, data)
        stages += [align, retrieval, probe]
        measured += [retrieval.name, probe.name]
    splits = ",".join(str(data / split) for split in ("motion-test", "relations-test"))
    report = [f"results={work / 'results'}", f"runs={work / 'train'}", f"out={work / 'report'}"]
    report += [f"splits=[{splits}]", f"commands={work / 'commands.txt'}"]
    return [*stages, Stage("report", _python("eval/report.py", *report), tuple(measured))]


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

    Raises StageFailed, after stopping the others, when a command returns an error or does not leave its marker;
    UserError as :func:`finished_stages` does.
    """
    done = finished_stages(stages, logs)
    logs.mkdir(parents=True, exist_ok=True)
    threads = {"OMP_NUM_THREADS": str(max(1, cores() // jobs)), "PYTHONUNBUFFERED": "1"}
    environment = {**os.environ, **threads}
    waiting = [stage for stage in stages if stage.name not in done]
    if done:
        print(f"{_clock()} already done: {', '.join(stage.name for stage in stages if stage.name in done)}", flush=True)
    running: list[_Running] = []
    news = time.monotonic() + NEWS_SECONDS
    try:
        while waiting or running:
            for stage in [stage for stage in waiting if done.issuperset(stage.needs)][: jobs - len(running)]:
                waiting.remove(stage)
                _record(logs, stage).unlink(missing_ok=True)
                running.append(_Running(stage, logs / f"{stage.name}.log", environment))
            finished = [process for process in running if process.finished()]
            running = [process for process in running if process not in finished]
            for stage in (process.stage for process in finished):
                done.add(stage.name)
                _record(logs, stage).write_text(json.dumps(stage.settings()))
            if time.monotonic() > news:
                news += NEWS_SECONDS
                for process in running:
                    process.report()
            time.sleep(POLL_SECONDS)
    finally:
        _stop(running)


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

    def finished(self) -> bool:
        """Whether it has ended well; raises StageFailed if it has ended otherwise."""
        code = self._process.poll()
        if code is None:
            return False
        if code != 0:
            raise StageFailed(
                f"stage {self.stage.name} ended with code {code}; the end of {self.log}:\n{self._tail(TAIL_LINES)}"
            )
        if self.stage.marker is not None and not self.stage.marked:
            raise StageFailed(f"stage {self.stage.name} ended without writing {self.stage.marker}; see {self.log}")
        print(f"{_clock()} {self.stage.name}: done in {_minutes(time.monotonic() - self._start)}", flush=True)
        return True

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


def _encoders(config: PipelineConfig, work: Path) -> list[Encoder]:
    """Trained encoders and, from the first variant's runs, the controls that every table carries."""

    def exported(variant: str, seed: int) -> str:
        return f"encoder.checkpoint={_run(work, variant, seed) / 'encoder'}"

    encoders = [
        Encoder(
            variant,
            seed,
            f"train-{variant}-{seed}",
            ["encoder=own", f"encoder.name={variant}", exported(variant, seed)],
        )
        for variant in config.variants
        for seed in config.seeds
    ]
    first, seed = config.variants[0], config.seeds[0]
    pixels = ["encoder=raw_patches", exported(first, seed)]
    # The widest tokens, so the longest stages: before random_init, not last.
    encoders.append(Encoder("raw_patches", seed, f"train-{first}-{seed}", pixels, lacks=("predict",), controlled=False))
    for seed in config.seeds:
        arguments = ["encoder=random_init", exported(first, seed), f"encoder.seed={seed}"]
        encoders.append(Encoder("random_init", seed, f"train-{first}-{seed}", arguments, controlled=False))
    return encoders


def _pretraining(config: PipelineConfig, variant: str, seed: int, work: Path, data: Path, port: int) -> Stage:
    run = _run(work, variant, seed)
    arguments = [
        f"experiment={config.experiments}/{variant}",
        f"run={run}",
        f"seed={seed}",
        f"data.root={data}",
        *config.arguments.train,
    ]
    marker = run / "encoder" / "config.json"
    return Stage(f"train-{variant}-{seed}", _deepspeed(port, *arguments), ("data",), marker, KEEP_MEMORY)


def _alignment(
    config: PipelineConfig, encoder: Encoder, work: Path, data: Path, port: int, after: tuple[str, ...]
) -> Stage:
    run = work / "align" / encoder.name / f"seed{encoder.seed}"
    arguments = ["experiment=align", f"run={run}", f"seed={encoder.seed}", *encoder.arguments, f"data.root={data}"]
    arguments += config.arguments.align
    return Stage(
        f"align-{encoder.label}", _deepspeed(port, *arguments), (encoder.needs, *after), run / "head" / "config.json"
    )


def _evaluations(config: PipelineConfig, encoder: Encoder, align: str, work: Path, data: Path) -> tuple[Stage, Stage]:
    head = work / "align" / encoder.name / f"seed{encoder.seed}" / "head"
    retrieval, probe = (work / "results" / f"{kind}-{encoder.label}.json" for kind in ("retrieval", "probe"))
    shared = [*encoder.arguments, f"data.root={data}"]
    fills = [fill for fill in config.fills if fill not in encoder.lacks]
    probing = [one for one in config.arguments.probe if encoder.controlled or not one.startswith("controls=")]
    return (
        Stage(
            f"retrieval-{encoder.label}",
            _python(
                "eval/retrieval.py",
                *shared,
                f"head={head}",
                f"fills=[{','.join(fills)}]",
                f"out={retrieval}",
                *config.arguments.retrieval,
            ),
            (align,),
            retrieval,
        ),
        Stage(
            f"probe-{encoder.label}",
            _python("eval/probe.py", *shared, f"out={probe}", *probing),
            (encoder.needs,),
            probe,
        ),
    )


def _run(work: Path, variant: str, seed: int) -> Path:
    return work / "train" / variant / f"seed{seed}"


def _python(program: str, *arguments: str) -> list[str]:
    return [sys.executable, program, *arguments]


def _deepspeed(port: int, *arguments: str) -> list[str]:
    """train.py through the launcher, on one rank and a port of its own, so that several can run at once."""
    launcher = Path(sys.executable).parent / "deepspeed"
    return [str(launcher), "--num_accelerators", "1", "--master_port", str(port), "train.py", *arguments]


def _free_ports(count: int) -> Iterator[int]:
    """Different free ports: all are bound at once before any is let go."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
    return iter(ports)


_STARTED = time.monotonic()


def _clock() -> str:
    return f"[{_minutes(time.monotonic() - _STARTED):>6}]"


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
