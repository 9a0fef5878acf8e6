"""The headline: what the rows say about each trained encoder against the untrained one, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmjepa.evaluation.report.comparisons import Comparison
from mmjepa.evaluation.report.retention import clean_estimate
from mmjepa.evaluation.report.rows import Estimate, Results, distinct, join_seeds, where
from mmjepa.evaluation.report.style import percent, title_of

HEADLINE_PROBE = "attentive"


@dataclass(frozen=True)
class Finding:
    """One sentence, and whether it is what a working recipe would show (None: cannot be said)."""

    sentence: str
    good: bool | None


def headline(results: Results, comparisons: Sequence[Comparison]) -> list[Finding]:
    """Does each trained encoder beat the random initialisation: on text-to-video R@1, then on the probes."""
    if not results.trained():
        return [Finding("There is no trained encoder among the results: only controls were evaluated.", None)]
    found = []
    for name in results.trained():
        found += [_retrieval_finding(results, name), _probe_finding(results, name)]
        found += [_paired_finding(one) for one in comparisons if one.encoder == name and not one.lossy]
    return [one for one in found if one is not None]


def verdict(
    name: str, trained: Estimate | None, control: Estimate | None, what: str, control_name: str = "random init"
) -> Finding:
    """Compare two intervals: apart above, apart below, or overlapping. Missing numbers are said to be missing."""
    if trained is None or control is None:
        lacking = name if trained is None else control_name
        return Finding(f"{name} against {control_name} on {what}: cannot be said, {lacking} was not measured.", None)
    numbers = f"{percent(trained)} against {percent(control)} %"
    if trained.beats(control):
        return Finding(f"{name} beats {control_name} on {what}: {numbers}.", True)
    if control.beats(trained):
        return Finding(f"{name} does not beat {control_name} on {what}, it is below: {numbers}.", False)
    side = "above" if trained.value > control.value else "not above"
    doubt = f"does not beat {control_name} on {what} by more than the intervals"
    return Finding(f"{name} {doubt} ({side}, and they overlap): {numbers}.", False)


def chance(results: Results, direction: str = "text_to_video") -> Estimate | None:
    """R@1 of a constant embedding with one true video per query: 1 / gallery; None without retrieval rows."""
    galleries = distinct(where(results.retrieval, direction=direction, rate=0.0), "gallery")
    if len(galleries) != 1:
        return None
    return Estimate(1 / galleries[0], 1 / galleries[0], 1 / galleries[0], 0)


def _retrieval_finding(results: Results, encoder: str) -> Finding:
    trained = clean_estimate(results, encoder, "text_to_video", "R@1")
    control = clean_estimate(results, "random_init", "text_to_video", "R@1")
    return verdict(title_of(encoder), trained, control, "text-to-video R@1")


def _paired_finding(comparison: Comparison) -> Finding:
    """The same question on the same queries, which tells smaller differences from noise than two intervals can."""
    one = comparison.difference
    points = percent(Estimate(one.difference, one.low, one.high, comparison.seeds))
    names = f"{title_of(comparison.encoder)} minus {title_of(comparison.other)}"
    decided = "" if one.low > 0 or one.high < 0 else ": no difference that could be told from noise"
    p_value = f"p = {comparison.p_value:.3f} after Holm's correction"
    return Finding(f"Paired on the same queries, {names} in R@1: {points} points, {p_value}{decided}.", None)


def _probe_finding(results: Results, encoder: str) -> Finding | None:
    """How many of the tasks' probes are above random init by more than the intervals."""
    rows = where(results.probes, probe=HEADLINE_PROBE, control="none")
    tasks = distinct(rows, "task")
    pairs = {
        t: (join_seeds(where(rows, task=t, encoder=encoder)), join_seeds(where(rows, task=t, encoder="random_init")))
        for t in tasks
    }
    known = {task: (ours, control) for task, (ours, control) in pairs.items() if ours and control}
    if not known:
        return None
    won = [task for task, (ours, control) in known.items() if ours.beats(control)]
    names = f" ({', '.join(won)})" if won else ""
    share = f"{len(won)} of {len(known)} {HEADLINE_PROBE} probes{names}"
    sentence = f"{title_of(encoder)} is above random init by more than the intervals on {share}."
    return Finding(sentence, len(won) > len(known) / 2)
