"""The headline of a study: which objectives help, on which task, by how much, which do not, and what cannot be told."""

from __future__ import annotations

import statistics

from mmjepa.evaluation.report.findings import Finding
from mmjepa.evaluation.report.probe_clips import ProbeComparison
from mmjepa.evaluation.report.study import REFERENCE, Study, on_task
from mmjepa.evaluation.report.style import percent, points, title_of


def study_findings(study: Study) -> list[Finding]:
    """What was learned at all, then gains, losses, null results, and what rests on one seed."""
    unknown = [task for task in study.tasks if all(one.seeds < 2 for one in on_task(study.above_untrained, task))]
    found = [_learned(study, task) for task in study.tasks if task not in unknown]
    if unknown:
        words = f"{', '.join(unknown)}: cannot be said, random init was not probed with several seeds."
        found.append(Finding(words, None, "Above random init"))
    if study.several:
        found += [*_differing(study, 1), *_differing(study, -1), *_nulls(study)]
    else:
        found.append(
            Finding("no variant shares several seeds with the baseline, so nothing is claimed.", None, "Gains")
        )
    once = study.variants(study.single)
    if once:
        verb, them = ("variant was", "it") if len(once) == 1 else ("variants were", "them")
        words = f"{len(once)} {verb} trained with one seed; nothing is claimed of {them}."
        found.append(Finding(words, None, "One seed"))
    return found


def _learned(study: Study, task: str) -> Finding:
    """How far the best and the worst encoder are above random init."""
    ranked = on_task(study.above_untrained, task)
    best, worst = ranked[0], ranked[-1]
    if study.learned(task) is False:
        return Finding(
            f"{task}: no encoder is above random init beyond noise (best: {_named(best)} points). That anything "
            "was learned there is not shown, so the study cannot tell which objective helps.",
            False,
            "Above random init",
        )
    if study.learned(task) is None:
        alone = "; ".join(_named(one) for one in ranked if one.difference.low > 0)
        return Finding(
            f"{task}: undecided. Alone, {alone} points would be above random init, but not among "
            f"{len(study.above_untrained)} comparisons: more seeds are needed.",
            None,
            "Above random init",
        )
    level = study.readings.level(best.encoder, task)
    top = "" if level is None else f" ({percent(level)} %)"
    above = sum(one.significant and one.difference.difference > 0 for one in ranked)
    return Finding(
        f"{task}: {above} of {len(ranked)} encoders are; best {_named(best)} points{top}, worst {_named(worst)}.",
        True,
        "Above random init",
    )


def _differing(study: Study, sign: int) -> list[Finding]:
    """Significant differences of one sign, task by task; one sentence if there is none."""
    topic, word = ("Significant gains", "above") if sign > 0 else ("Significant losses", "below")
    found = []
    for task in study.tasks:
        ranked = on_task(study.several, task)
        marked = [one for one in ranked if one.significant and sign * one.difference.difference > 0]
        if marked:
            listed = "; ".join(f"{_named(one)}, p = {p_text(one)}" for one in sorted(marked, key=_size, reverse=True))
            hedge = " (where learning is not shown)" if study.learned(task) is False else ""
            found.append(Finding(f"{task}{hedge}: {listed}.", None, topic))
    corrected = f"after Holm's correction over {len(study.several)} comparisons"
    return found or [Finding(f"none. No objective is {word} the {REFERENCE} on any task {corrected}.", None, topic)]


def _nulls(study: Study) -> list[Finding]:
    """What cannot be told from the baseline, and how large an effect could have hidden."""
    found = []
    for task in study.tasks:
        unmarked = [one for one in on_task(study.several, task) if not one.significant]
        if unmarked and study.learned(task) is not False:
            names = ", ".join(title_of(one.encoder) for one in unmarked)
            width = statistics.median(_half_width(one) for one in unmarked)
            words = f"{task}: {names}. Their 95 % intervals reach {100 * width:.1f} points to each side in the median."
            alone = [one for one in unmarked if one.estimate.low > 0 or one.estimate.high < 0]
            if alone:
                words += f" Suggestive alone, but not among {len(study.several)} comparisons: "
                words += "; ".join(map(_named, alone)) + "."
            found.append(Finding(words, None, "No difference found"))
    return found


def p_text(one: ProbeComparison) -> str:
    """``0.012``, or ``< 0.001``."""
    return "< 0.001" if one.p_value < 0.001 else f"{one.p_value:.3f}"


def _named(one: ProbeComparison) -> str:
    return f"{title_of(one.encoder)} {points(one.estimate)}"


def _size(one: ProbeComparison) -> float:
    return abs(one.difference.difference)


def _half_width(one: ProbeComparison) -> float:
    return (one.difference.high - one.difference.low) / 2
