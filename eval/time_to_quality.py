"""How much training two recipes take and what it brings: seconds of steps, and the mean of the probes after them.

Seconds are a run's median step times its number of steps, so that what else the machine did for a while does not count.

    python eval/time_to_quality.py ours=runs/study/baseline theirs=runs/published_recipe/published_recipe

Each side is a pipeline's folder and one of its variants, trained on one core per run. If the other recipe reads less in
spite of more seconds, the ratio of the seconds is an upper bound of what ours needs of the other's time.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import MISSING

from mmjepa.config import run_program, to_dict
from mmjepa.errors import UserError
from mmjepa.evaluation.report.probe_clips import ProbeClips, read_probe
from mmjepa.evaluation.report.rows import load_results
from mmjepa.evaluation.report.runs import load_runs
from mmjepa.evaluation.results import result_path, write_results
from mmjepa.evaluation.statistics import hierarchical_bootstrap, hierarchical_paired_difference

PROBE = "attentive"


@dataclass
class QualityConfig:
    """Two recipes, each as <pipeline folder>/<variant>. out: .json file (null: print only)."""

    ours: str = MISSING
    theirs: str = MISSING
    out: str | None = None


@dataclass(frozen=True)
class Recipe:
    """Seconds of training steps of every run, and by seed what each test clip adds to the mean over tasks (N,)."""

    seconds: list[float]
    scores: dict[int, np.ndarray]


def main(config: QualityConfig) -> None:
    """Compare two recipes that were trained and probed on the same benchmark."""
    out = None if config.out is None else result_path(config.out)
    ours, theirs = _recipe(config.ours), _recipe(config.theirs)
    seeds = sorted(ours.scores.keys() & theirs.scores.keys())
    if not seeds:
        raise UserError("the two recipes have no pretraining seed in common")
    rows = []
    for where, one in ((config.ours, ours), (config.theirs, theirs)):
        mean = hierarchical_bootstrap([one.scores[seed] for seed in seeds])
        seconds = statistics.median(one.seconds)
        rows.append({"recipe": where, "seconds": seconds, "probes": mean.estimate, "low": mean.low, "high": mean.high})
        print(f"{where}: {seconds:.0f} s, probes {mean.estimate:.3f} [{mean.low:.3f}, {mean.high:.3f}]")
    difference = hierarchical_paired_difference([ours.scores[s] for s in seeds], [theirs.scores[s] for s in seeds])
    ratio = statistics.median(ours.seconds) / statistics.median(theirs.seconds)
    print(
        f"{len(seeds)} seeds: ours reads {difference.difference:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] "
        f"with {ratio:.2f} of the seconds"
    )
    if out is not None:
        facts = {"seeds": seeds, "ratio_of_seconds": ratio, "difference": vars(difference)}
        write_results(out, "eval/time_to_quality.py", to_dict(config), rows, facts)


def _recipe(where: str) -> Recipe:
    work, variant = Path(where).parent, Path(where).name
    for part in ("train", "results"):
        if not (work / part).is_dir():
            raise UserError(f"{where}: no folder {work / part}")
    runs = [run for run in load_runs(work / "train") if run.encoder == variant]
    clips = read_probe(load_results(work / "results"), PROBE).clips.get(variant, {})
    if not runs or not clips:
        raise UserError(f"{where}: {work} has no trained and probed {variant!r}")
    return Recipe([_seconds(run.rows) for run in runs], {seed: _scores(one) for seed, one in clips.items()})


def _seconds(rows: Sequence[dict[str, float]]) -> float:
    """Of all steps, at the median of their times: every row holds the mean of the steps since the row before."""
    return rows[-1]["step"] * statistics.median(row["seconds_per_step"] for row in rows)


def _scores(clips: ProbeClips) -> np.ndarray:
    """One value per test clip of all tasks, with a mean that is the mean over tasks of their top-1."""
    total = sum(len(values) for values in clips.correct.values())
    return np.concatenate(
        [values * total / (len(values) * len(clips.correct)) for _, values in sorted(clips.correct.items())]
    )


if __name__ == "__main__":
    run_program("time_to_quality", QualityConfig, main)
