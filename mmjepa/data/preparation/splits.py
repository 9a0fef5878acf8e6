"""Plans to splits: check them against what was published, make the shards that are not there yet, write manifests."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmjepa.data.manifest import Manifest, Provenance, finish_split, is_finished, shard_name
from mmjepa.data.preparation.checksums import Checksums
from mmjepa.data.preparation.engines import run_tasks
from mmjepa.data.preparation.options import FINISH, PreparationConfig, StillEncoding, VideoEncoding
from mmjepa.data.preparation.records import LeftOut, SplitPlan
from mmjepa.data.preparation.work import NOTES, PACKAGES, ShardNote, ShardTask, finished_note, make_shard
from mmjepa.digest import file_sha256
from mmjepa.errors import UserError, making

_LOG = logging.getLogger(__name__)
_LEFT_OUT = "left-out.jsonl"


@dataclass(frozen=True)
class _Work:
    """A split that is still to be finished."""

    folder: Path
    plan: SplitPlan
    tasks: list[ShardTask]

    @property
    def digest(self) -> str:
        """Identifies the split's shards (hex)."""
        return hashlib.sha256("\n".join(task.digest for task in self.tasks).encode()).hexdigest()


def prepare(
    config: PreparationConfig,
    program: str,
    plans: Sequence[SplitPlan],
    encoding: VideoEncoding | StillEncoding,
    out: Path | None = None,
    **settings: Any,
) -> list[Path]:
    """Write the splits into ``out`` (else ``config.out``) and return their folders.

    ``settings``: what else the program was asked for, for the manifest.

    Shards depend on the plans, the seed, ``samples_per_shard`` and the encoding only. A split that is complete with the
    same settings is left alone, and so are finished shards of an interrupted run. Raises UserError if annotations do
    not name what was published, files are missing (see ``config.missing``), or the folder holds something else.
    """
    with making("out", config.out):
        return _prepared(config, program, plans, encoding, Path(config.out) if out is None else out, settings)


def _prepared(
    config: PreparationConfig,
    program: str,
    plans: Sequence[SplitPlan],
    encoding: VideoEncoding | StillEncoding,
    out: Path,
    settings: dict[str, Any],
) -> list[Path]:
    if Path(config.out).exists() and not Path(config.out).is_dir():
        raise UserError(f"out={config.out}: is a file, not a folder")
    _check_counts(config, plans)
    _check_files(config, plans, out)
    checksums = None if config.checksums is None else Checksums(Path(config.checksums))
    works = [_plan_shards(config, plan, out / plan.folder, encoding, checksums) for plan in plans]
    todo = [work for work in works if not _is_complete(work)]
    part, parts = config.part()
    notes: dict[Path, ShardNote] = {}
    waiting: list[ShardTask] = []
    for number, task in enumerate(task for work in todo for task in work.tasks):
        note = finished_note(task)
        if note is not None and (not note.left_out or config.missing == "skip" or config.shard == FINISH):
            notes[task.path] = note  # a shard that lacks something is tried again: the file may have been mended
        elif number % parts == part:
            waiting.append(task)
    if config.shard == FINISH and waiting:
        raise UserError(f"{len(waiting)} shards are not made yet, e.g. {waiting[0].path}: run the parts that make them")
    _make(config, waiting, notes)
    if parts > 1:
        _LOG.info("part %s is done; shard=%s makes the manifests when all parts are", config.shard, FINISH)
    else:
        for work in todo:
            _finish(config, program, work, [notes[task.path] for task in work.tasks], encoding, settings)
    return [work.folder for work in works]


def _check_counts(config: PreparationConfig, plans: Sequence[SplitPlan]) -> None:
    """Compare the annotations with what was published."""
    wrong = [
        f"{plan.folder}: {' and '.join(path.name for path in plan.annotations) or 'the files'} name {plan.named} "
        f"samples where {plan.published} were published"
        for plan in plans
        if plan.published is not None and plan.named != plan.published
    ]
    if wrong and config.counts == "published":
        raise UserError(f"{'; '.join(wrong)}: another version, or a part of the data; counts=any takes it as it is")
    for line in wrong:
        _LOG.warning("%s: taken as it is (counts=any)", line)


def _check_files(config: PreparationConfig, plans: Sequence[SplitPlan], out: Path) -> None:
    """Say which files are missing, and refuse to go on unless that is wanted."""
    for plan in plans:
        if plan.missing:
            _write_left_out(out / plan.folder, plan.missing)
    lacking = "; ".join(
        f"{plan.folder}: {len(plan.missing)} of {plan.named} files are missing, e.g. {plan.missing[0].file}, all in "
        f"{out / plan.folder / _LEFT_OUT}"
        for plan in plans
        if plan.missing
    )
    if lacking and config.missing == "refuse":
        raise UserError(f"{lacking}; missing=skip leaves them out")
    if lacking:
        _LOG.warning("%s (left out)", lacking)
    empty = [plan.folder for plan in plans if not plan.records]
    if empty:
        raise UserError(f"{', '.join(empty)}: none of the files that the annotations name are in {config.raw}")


def _plan_shards(
    config: PreparationConfig,
    plan: SplitPlan,
    folder: Path,
    encoding: VideoEncoding | StillEncoding,
    checksums: Checksums | None,
) -> _Work:
    """Deal the records into shards in an order that the seed and the split's name fix."""
    records = sorted(plan.records, key=lambda record: record.id)
    random.Random(f"{config.seed}/{plan.folder}").shuffle(records)
    keyed = [(plan.key(record), record) for record in records]
    sums = None if checksums is None else checksums.of(records)
    starts = range(0, len(keyed), config.samples_per_shard)
    tasks = [
        ShardTask(
            folder / shard_name(number),
            plan.source,
            plan.split,
            tuple(keyed[start : start + config.samples_per_shard]),
            encoding,
            None if sums is None else sums[start : start + config.samples_per_shard],
            config.timeout,
        )
        for number, start in enumerate(starts)
    ]
    return _Work(folder, plan, tasks)


def _is_complete(work: _Work) -> bool:
    if not is_finished(work.folder):
        return False
    present = Manifest.read(work.folder)
    if present.provenance.arguments.get("plan") != work.digest:
        raise UserError(
            f"{work.folder}: already holds a split of other settings, files or library versions; delete it or give "
            "another out=..."
        )
    for shard in present.shards:
        path = work.folder / shard.name
        if not path.is_file() or path.stat().st_size != shard.bytes:
            raise UserError(f"{path}: missing or not of the size in the manifest; delete {work.folder} to make it anew")
    _LOG.info("%s: already complete with these settings, left alone", work.folder)
    return True


def _make(config: PreparationConfig, tasks: Sequence[ShardTask], notes: dict[Path, ShardNote]) -> None:
    """Make the shards, and put their notes with the others. The bar counts samples; it moves with every shard."""
    by_digest = {task.digest: task for task in tasks}
    with tqdm(total=sum(len(task.records) for task in tasks), unit="sample", disable=not tasks) as progress:
        for note in run_tasks(make_shard, tasks, config.engine, config.processes):
            task = by_digest[note.digest]
            notes[task.path] = note
            progress.update(len(task.records))


def _finish(
    config: PreparationConfig,
    program: str,
    work: _Work,
    notes: Sequence[ShardNote],
    encoding: VideoEncoding | StillEncoding,
    settings: dict[str, Any],
) -> None:
    """Write the manifest, if what did not decode may be left out."""
    plan = work.plan
    unreadable = [one for note in notes for one in note.left_out]
    _write_left_out(work.folder, [*plan.missing, *unreadable])
    if unreadable:
        told = f"{work.folder}: {len(unreadable)} of {len(plan.records)} files cannot be used, e.g. "
        told += f"{unreadable[0].file} ({unreadable[0].reason}), all in {work.folder / _LEFT_OUT}"
        if config.missing == "refuse":
            raise UserError(f"{told}; missing=skip leaves them out (the shards are kept)")
        _LOG.warning("%s (left out)", told)
    entries = tuple(note.entry for note in notes if note.entry.samples)
    if not entries:
        raise UserError(f"{work.folder}: not one of its {len(plan.records)} files can be used")
    arguments = {"raw": Path(config.raw).name, **settings, "samples_per_shard": config.samples_per_shard}
    arguments |= {"encoding": dataclasses.asdict(encoding), "plan": work.digest}
    arguments |= {"annotations": {path.name: file_sha256(path) for path in plan.annotations}}
    arguments |= {"checksums": None if config.checksums is None else file_sha256(Path(config.checksums))}
    arguments |= {"left_out": {"missing": len(plan.missing), "unreadable": len(unreadable)}}
    provenance = Provenance.collect(program, arguments, config.seed, PACKAGES)
    manifest = Manifest(plan.source, plan.folder, plan.kind, entries, provenance)
    finish_split(work.folder, manifest)
    shutil.rmtree(work.folder / NOTES)
    _LOG.info("%s: %d samples, fingerprint %s", work.folder, manifest.samples, manifest.fingerprint[:12])


def _write_left_out(folder: Path, left_out: Sequence[LeftOut]) -> None:
    """List what a split lacks beside its shards; no list where it lacks nothing."""
    if not left_out:
        (folder / _LEFT_OUT).unlink(missing_ok=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(dataclasses.asdict(one), ensure_ascii=False) for one in left_out]
    temporary = folder / f".{_LEFT_OUT}.{os.getpid()}.tmp"
    temporary.write_text("".join(f"{line}\n" for line in lines))
    os.replace(temporary, folder / _LEFT_OUT)
