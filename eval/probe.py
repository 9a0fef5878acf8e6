"""Frozen probes of an encoder: what can be read from its tokens about appearance, motion and relations.

    python eval/probe.py encoder=own encoder.name=baseline encoder.checkpoint=RUN/encoder data.root=data/sprites \
        out=results/probe-baseline.json

A task is a pair of labelled splits, <task>-train and <task>-test, or <task>-<part> for a task written <task>/<part>
(ssv2/validation, where test labels were never published). Stills go through the encoder's image path.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from omegaconf import MISSING
from torch import Tensor

from mmjepa.config import run_program, to_dict
from mmjepa.data.evaluation_set import EvaluationSet
from mmjepa.errors import UserError
from mmjepa.evaluation.probes import CONTROLS, PROBES, ProbeResult, control_pixels, fit_probe, majority_row
from mmjepa.evaluation.results import result_path, write_results
from mmjepa.evaluation.statistics import bootstrap_interval
from mmjepa.frozen import EncoderConfig, FrozenEncoder, build_encoder
from mmjepa.frozen.clips import ClipsConfig


@dataclass
class ProbeConfig:
    """Every task x control x probe is a row. ``data.limit`` holds for each split."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    data: ClipsConfig = field(default_factory=ClipsConfig)
    out: str = MISSING
    tasks: list[str] = MISSING
    probes: list[str] = MISSING
    controls: list[str] = MISSING
    seed: int = 0
    resamples: int = 1000

    def __post_init__(self) -> None:
        for name, known in (("probes", tuple(PROBES)), ("controls", CONTROLS)):
            given = getattr(self, name)
            unknown = [] if given == MISSING else [one for one in given if one not in known]
            if given == [] or unknown:
                raise UserError(f"{name}={given}: choose from {', '.join(known)}")
        if self.tasks == [] or self.resamples < 1:
            raise UserError("tasks needs at least one entry, resamples at least 1")


@dataclass(frozen=True)
class LabelledTokens:
    """One split: names of the N clips, float16 tokens (N, T', S, D) by control, labels (N,)."""

    keys: list[str]
    by_control: dict[str, Tensor]
    labels: Tensor


def main(config: ProbeConfig) -> None:
    """Fit frozen probes on every task and write one row per task, control and probe.

    Beside the rows, in an .npz of the same name: which test clips each probe classified correctly, for paired tests.
    """
    out = result_path(config.out)
    encoder = build_encoder(config.encoder)
    rows: list[dict[str, Any]] = []
    details: list[dict[str, Any]] = []
    clips_of: dict[str, np.ndarray] = {}
    unusable: list[str] = []
    splits = {
        name: [config.data.open([f"{name}-{part}"], encoder.spec) for part in ("train", tested or "test")]
        for name, _, tested in (task.partition("/") for task in config.tasks)
    }
    for clips in itertools.chain.from_iterable(splits.values()):
        clips.require("label")
    for train_clips, test_clips in splits.values():
        check_same_classes(train_clips, test_clips)
    for task, (train_clips, test_clips) in splits.items():
        controls = config.controls if train_clips.kind == "video" else ["none"]  # a still has no time to take away
        train, test = (encode_split(encoder, clips, controls) for clips in (train_clips, test_clips))
        clips_of[f"{task}/keys"] = np.array(test.keys)
        unusable += train_clips.quarantine.names + test_clips.quarantine.names
        for name, control, result in _results(config, train, test):
            rows.append(_row(config, name, encoder, task, control, result))
            details.append({"task": task, "control": control, "probe": result.probe, **result.chosen})
            details[-1]["train_accuracy"] = result.train_accuracy
            clips_of[f"{task}/{control}/{result.probe}"] = result.correct.astype(bool)
            print(f"{task:10s} {control:15s} {result.probe:9s} top1 {result.top1:.3f}", flush=True)
    facts = {"encoder_fingerprint": encoder.spec.fingerprint, "unusable": unusable, "probes": details}
    np.savez_compressed(out.with_suffix(".npz"), allow_pickle=False, **clips_of)
    write_results(out, "eval/probe.py", to_dict(config), rows, facts)
    print(f"{len(rows)} rows: {out}")


def check_same_classes(train: EvaluationSet, test: EvaluationSet) -> None:
    """Raise UserError if a label of test means another class in train: each split numbered its classes by itself."""
    numbers = train.class_names()
    of_name = {name: number for number, name in numbers.items() if name}
    for number, name in test.class_names().items():
        if numbers.get(number, name) != name or of_name.get(name, number) != number:
            there = f"label {number} is {numbers[number]}" if number in numbers else f"{name} has label {of_name[name]}"
            raise UserError(
                f"{there} in {train}, but label {number} is {name} in {test}: both must number one list of classes "
                "(data_prep/folder.py: classes=TRAIN/classes.txt)"
            )


def encode_split(encoder: FrozenEncoder, clips: EvaluationSet, controls: Sequence[str]) -> LabelledTokens:
    """Tokens of a split under every control, each clip decoded once. All clips must have a label."""
    parts: dict[str, list[Tensor]] = {control: [] for control in controls}
    labels: list[int] = []
    keys: list[str] = []
    for batch in clips:
        keys += batch.keys
        labels += [int(meta["label"]) for meta in batch.metas]
        for control in controls:
            pixels = control_pixels(batch.pixels, control, batch.keys)
            parts[control].append(encoder.encode(pixels).tokens.half().cpu())
    return LabelledTokens(keys, {control: torch.cat(chunks) for control, chunks in parts.items()}, torch.tensor(labels))


def _results(
    config: ProbeConfig, train: LabelledTokens, test: LabelledTokens
) -> Iterator[tuple[str, str, ProbeResult]]:
    """(row's encoder name, control, result) of the majority class and of every probe under every control."""
    classes = int(torch.cat([train.labels, test.labels]).max()) + 1
    yield "majority", "none", majority_row(train.labels, test.labels, classes)
    for control, tokens in train.by_control.items():
        for probe in config.probes:
            sides = (tokens, train.labels, test.by_control[control], test.labels)
            yield config.encoder.name, control, fit_probe(probe, *sides, classes, config.seed)


def _row(
    config: ProbeConfig, name: str, encoder: FrozenEncoder, task: str, control: str, result: ProbeResult
) -> dict[str, Any]:
    interval = bootstrap_interval(result.correct, resamples=config.resamples)
    return {
        "encoder": name,
        "pretrain_seed": None if result.probe == "majority" else encoder.spec.pretrain_seed,
        "task": task,
        "probe": result.probe,
        "control": control,
        "metric": "top1",
        "value": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "train": result.train,
        "test": len(result.correct),
        "classes": result.classes,
    }


if __name__ == "__main__":
    run_program("probe", ProbeConfig, main)
