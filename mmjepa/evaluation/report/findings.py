"""The headline: what the rows say about each trained encoder against the untrained one, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmjepa.evaluation.report.comparisons import Comparison
from mmjepa.evaluation.report.probe_clips import Readings, read_probe
from mmjepa.evaluation.report.retention import clean_estimate
from mmjepa.evaluation.report.rows import Estimate, Results, distinct, where
from mmjepa.evaluation.report.style import percent, title_of

PROBE_PREFERENCE = ("attentive", "linear", "knn")
"""The first of these that was run stands for the probes in the headline and in the table at a glance."""


@dataclass(frozen=True)
class Finding:
    """One sentence, and whether it is what a working recipe would show (None: cannot be said).

    ``topic``: what it is an answer to; neighbours of one topic are read as a list.
    """

    sentence: str
    good: bool | None
    topic: str = ""

    def text(self) -> str:
        """The sentence as it reads alone."""
        return f"{self.topic}: {self.sentence}" if self.topic else self.sentence


def headline(results: Results, comparisons: Sequence[Comparison], readings: Readings | None) -> list[Finding]:
    """Does each trained encoder beat the random initialisation? A sum-up, then each encoder, then the probes."""
    trained = results.trained()
    if not trained:
        return [Finding("There is no trained encoder among the results: only controls were evaluated.", None)]
    measured = trained if results.retrieval else []
    retrieval = {name: _retrieval_finding(results, comparisons, name) for name in measured}
    probes = [_probe_finding(readings, name) for name in trained]
    against_baseline = [
        Finding(f"{title_of(one.encoder)} minus baseline in text-to-video R@1: {_paired(one)}.", None)
        for one in comparisons
        if one.other == "baseline" and not one.lossy
    ]
    found = [_sum_up(retrieval), *retrieval.values(), *against_baseline, *probes]
    return [one for one in found if one is not None]


def verdict(name: str, trained: Estimate | None, control: Estimate | None, what: str, paired: str = "") -> Finding:
    """Compare two intervals: apart above, apart below, or overlapping. Missing numbers are said to be missing.

    ``paired`` is appended: what the comparison on the same queries gives.
    """
    if trained is None or control is None:
        lacking = name if trained is None else "random init"
        return Finding(f"{name} against random init on {what}: cannot be said, {lacking} was not measured.", None)
    numbers = f"{percent(trained)} against {percent(control)} %{paired}"
    if trained.beats(control):
        return Finding(f"{name} beats random init on {what}: {numbers}.", True)
    if control.beats(trained):
        return Finding(f"{name} does not beat random init on {what}, it is below: {numbers}.", False)
    side = "above" if trained.value > control.value else "not above"
    return Finding(f"{name} does not beat random init on {what} ({side}, and the intervals overlap): {numbers}.", False)


def chance(results: Results, direction: str = "text_to_video") -> Estimate | None:
    """R@1 of a constant embedding; None without retrieval rows, or with rows of several galleries."""
    levels = distinct(where(results.retrieval, direction=direction, metric="R@1", rate=0.0), "chance")
    return Estimate(levels[0], levels[0], levels[0], 0) if len(levels) == 1 else None


def _sum_up(retrieval: Mapping[str, Finding]) -> Finding | None:
    """How many encoders beat random init on text-to-video R@1; None where that cannot be said of all of them."""
    if not retrieval or any(one.good is None for one in retrieval.values()):
        return None
    winners = [title_of(name) for name, one in retrieval.items() if one.good]
    what = "random init on text-to-video R@1 by more than the intervals"
    if not winners:
        return Finding(f"No trained encoder beats {what}.", False)
    if len(winners) == len(retrieval):
        return Finding(f"Every trained encoder ({', '.join(winners)}) beats {what}.", True)
    return Finding(f"{len(winners)} of {len(retrieval)} trained encoders ({', '.join(winners)}) beat {what}.", None)


def _retrieval_finding(results: Results, comparisons: Sequence[Comparison], encoder: str) -> Finding:
    trained = clean_estimate(results, encoder, "text_to_video", "R@1")
    control = clean_estimate(results, "random_init", "text_to_video", "R@1")
    same_queries = [
        f"; on the same queries {_paired(one)}"
        for one in comparisons
        if (one.encoder, one.other, one.lossy) == (encoder, "random_init", False)
    ]
    return verdict(title_of(encoder), trained, control, "text-to-video R@1", "".join(same_queries))


def _paired(comparison: Comparison) -> str:
    """Paired differences tell smaller effects from noise than two intervals can."""
    one = comparison.difference
    points = percent(Estimate(one.difference, one.low, one.high, comparison.seeds))
    decided = "" if one.low > 0 or one.high < 0 else ", not to be told from noise"
    told = f"p = {comparison.p_value:.2g} after Holm's correction{decided}"
    if comparison.seeds < 2:
        told += "; one pretraining seed, so of these two networks, not of the methods"
    return f"{points} points ({told})"


def headline_readings(results: Results) -> Readings | None:
    """The probe that stands for all of them; None if none was run."""
    run = distinct(results.probes, "probe")
    probe = next((probe for probe in PROBE_PREFERENCE if probe in run), None)
    return None if probe is None else read_probe(results, probe)


def _probe_finding(readings: Readings | None, encoder: str) -> Finding | None:
    """How many of the tasks' probes are above random init by more than the intervals."""
    if readings is None:
        return None
    pairs = {task: (readings.level(encoder, task), readings.level("random_init", task)) for task in readings.tasks}
    known = {task: (ours, control) for task, (ours, control) in pairs.items() if ours and control}
    if not known:
        return None
    won = [task for task, (ours, control) in known.items() if ours.beats(control)]
    names = f" ({', '.join(won)})" if won else ""
    share = f"{len(won)} of {len(known)} {readings.probe} probes{names}"
    sentence = f"{title_of(encoder)} is above random init by more than the intervals on {share}."
    return Finding(sentence, len(won) > len(known) / 2)
