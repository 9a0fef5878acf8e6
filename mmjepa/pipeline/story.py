"""The whole story as stages: shards -> pretraining -> text heads -> retrieval -> probes -> report.

Each stage is a command that anybody could type, a marker file that says it is done, and a log.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from mmjepa.config import CONFIG_DIR
from mmjepa.errors import UserError
from mmjepa.pipeline.stages import Stage

KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
"""For training: glibc otherwise returns large tensors to the system and faults their pages in anew, a tenth to a half
of a step. Not for evaluation, whose shapes change and whose heap would crumble."""

STUDY_TITLE = "Objectives of a Video-JEPA under frozen probes"
EXPERIMENTS = "sprites"
"""The experiments on the benchmark that a pipeline makes."""
MEASURES = ("retrieval", "probe")
CONTROLS = ("raw_patches", "random_init")
FACTORS = ("appearance", "dynamics")


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

    work: folder for everything. variants: options of ``configs/experiment/sprites/``, each with all pretraining
    ``seeds``; once: further ones, with the first seed alone. measures: what is measured of each encoder. controls: the
    untrained rows (a random initialisation per seed, raw patches once). factors: variants of which each factor's
    channels are also probed alone, as ``<variant>_appearance`` and ``<variant>_dynamics``. jobs: stages at a time; 0 is
    one per core. fills: what stands in for lost frames in retrieval. published: table of published figures that the
    report sets beside these (null: none).
    """

    work: str = MISSING
    variants: list[str] = MISSING
    seeds: list[int] = MISSING
    once: list[str] = field(default_factory=list)
    measures: list[str] = field(default_factory=lambda: list(MEASURES))
    controls: list[str] = field(default_factory=lambda: list(CONTROLS))
    factors: list[str] = field(default_factory=list)
    jobs: int = 0
    fills: list[str] = MISSING
    published: str | None = None
    arguments: StageArguments = field(default_factory=StageArguments)

    def __post_init__(self) -> None:
        if self.jobs < 0:
            raise UserError(f"jobs={self.jobs}: give a number of stages at a time, or 0 for one per core")
        if self.variants != MISSING and not (self.variants and self.seeds):
            raise UserError("variants and seeds need at least one entry each")
        for name, known in (("measures", MEASURES), ("controls", CONTROLS)):
            if unknown := [one for one in getattr(self, name) if one not in known]:
                raise UserError(f"{name}: no {unknown[0]!r}; choose from {', '.join(known)}")
        if not self.measures:
            raise UserError(f"measures needs at least one entry of {', '.join(MEASURES)}")
        if self.variants != MISSING:
            there = {path.stem for path in (CONFIG_DIR / "experiment" / EXPERIMENTS).glob("*.yaml")} - {"common"}
            if missing := [name for name in (*self.variants, *self.once) if name not in there]:
                raise UserError(
                    f"variants: no experiment {EXPERIMENTS}/{missing[0]}; there are {', '.join(sorted(there))}"
                )
        if strange := [name for name in self.factors if name not in (*self.variants, *self.once)]:
            raise UserError(f"factors: {strange[0]} stands neither in variants nor in once (factors=[] probes none)")
        if twice := [name for name in self.once if name in self.variants]:
            raise UserError(f"{twice[0]} stands in variants and in once")

    def runs(self) -> list[tuple[str, int]]:
        """(variant, seed) of every pretraining run, seed by seed, so that a study cut short is balanced."""
        runs = [(variant, seed) for seed in self.seeds for variant in self.variants]
        return runs + [(variant, self.seeds[0]) for variant in self.once]


@dataclass(frozen=True)
class Encoder:
    """One encoder of the tables: how the programs are told to build it, the fills it cannot do, whether its probes
    have controls (a control has none of its own: raw patches would take as long as all other stages together), and
    whether it is a whole encoder (one factor of another is only probed)."""

    name: str
    seed: int
    needs: str
    arguments: list[str]
    lacks: tuple[str, ...] = ()
    controlled: bool = True
    whole: bool = True

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
    ports = _free_ports(len(config.runs()) + len(encoders))
    training = {
        f"train-{variant}-{seed}": _pretraining(config, variant, seed, work, data, next(ports))
        for variant, seed in config.runs()
    }
    measured = []
    texts: tuple[str, ...] = ()
    for encoder in encoders:
        # Each encoder is measured as soon as it is trained: a study cut short has rows of all it has trained.
        stages += [training.pop(encoder.needs)] if encoder.needs in training else []
        if "retrieval" in config.measures and encoder.whole:
            # The first text head embeds the captions for all: the others wait for it instead of doing it beside it.
            align = _alignment(config, encoder, work, data, next(ports), texts)
            texts = texts or (align.name,)
            stages += [align, _retrieval(config, encoder, align.name, work, data)]
            measured.append(stages[-1].name)
        if "probe" in config.measures:
            stages.append(_probing(config, encoder, work, data))
            measured.append(stages[-1].name)
    report = [f"results={work / 'results'}", f"runs={work / 'train'}", f"out={work / 'report'}"]
    if "retrieval" in config.measures:
        report.append(f"splits=[{','.join(str(data / split) for split in ('motion-test', 'relations-test'))}]")
    else:
        report.append(f"title={STUDY_TITLE}")
    report.append(f"commands={work / 'commands.txt'}")
    report += [] if config.published is None else [f"published={config.published}"]
    return [*stages, Stage("report", _python("eval/report.py", *report), tuple(measured))]


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
        for variant, seed in config.runs()
    ]
    replicated = len(config.variants) * len(config.seeds)
    encoders, single = encoders[:replicated], encoders[replicated:]  # controls come between: no table is without them
    first, seed = config.variants[0], config.seeds[0]
    if "raw_patches" in config.controls:  # the widest tokens, so the longest stages: before random_init, not last
        pixels = ["encoder=raw_patches", exported(first, seed)]
        raw = Encoder("raw_patches", seed, f"train-{first}-{seed}", pixels, lacks=("predict",), controlled=False)
        encoders.append(raw)
    for seed in config.seeds if "random_init" in config.controls else ():
        arguments = ["encoder=random_init", exported(first, seed), f"encoder.seed={seed}"]
        encoders.append(Encoder("random_init", seed, f"train-{first}-{seed}", arguments, controlled=False))
    encoders += single
    for variant, seed in config.runs():
        for factor in FACTORS if variant in config.factors else ():
            name = f"{variant}_{factor}"
            arguments = ["encoder=own", f"encoder.name={name}", exported(variant, seed), f"encoder.factor={factor}"]
            encoders.append(Encoder(name, seed, f"train-{variant}-{seed}", arguments, controlled=False, whole=False))
    return encoders


def _pretraining(config: PipelineConfig, variant: str, seed: int, work: Path, data: Path, port: int) -> Stage:
    run = _run(work, variant, seed)
    arguments = [
        f"experiment={EXPERIMENTS}/{variant}",
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


def _retrieval(config: PipelineConfig, encoder: Encoder, align: str, work: Path, data: Path) -> Stage:
    head = work / "align" / encoder.name / f"seed{encoder.seed}" / "head"
    out = work / "results" / f"retrieval-{encoder.label}.json"
    fills = ",".join(fill for fill in config.fills if fill not in encoder.lacks)
    arguments = [*encoder.arguments, f"data.root={data}", f"head={head}", f"fills=[{fills}]", f"out={out}"]
    command = _python("eval/retrieval.py", *arguments, *config.arguments.retrieval)
    return Stage(f"retrieval-{encoder.label}", command, (align,), out)


def _probing(config: PipelineConfig, encoder: Encoder, work: Path, data: Path) -> Stage:
    out = work / "results" / f"probe-{encoder.label}.json"
    probing = [one for one in config.arguments.probe if encoder.controlled or not one.startswith("controls=")]
    command = _python("eval/probe.py", *encoder.arguments, f"data.root={data}", f"out={out}", *probing)
    return Stage(f"probe-{encoder.label}", command, (encoder.needs,), out)


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
