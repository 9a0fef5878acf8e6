"""The paper beside us: its figures, its claims one by one, what its code really ran, and what our runs say.

Figures are those found in the reference repository (results/published.csv); every difference is recomputed here.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmjepa.errors import UserError
from mmjepa.evaluation.report.probe_clips import ProbeComparison
from mmjepa.evaluation.report.rows import Estimate
from mmjepa.evaluation.report.sections import Section
from mmjepa.evaluation.report.style import percent, title_of
from mmjepa.evaluation.report.tables import Column, Table, to_html

COUNTERPART = {"imagenet100": "appearance", "diving48": "motion", "ssv2": "relations"}
"""Our task that asks what a published benchmark asks."""
SHOWN = {"imagenet100": "ImageNet-100", "diving48": "Diving-48", "ssv2": "SSv2", "synth8": "synthetic directions"}
MAIN_PROBES = {
    "imagenet100": ("linear_gap",),
    "diving48": ("attentive_all_tokens",),
    "ssv2": ("attentive_on_gap_vector",),
    "synth8": ("attentive_all_tokens",),
}
"""The probe behind the published tables; the repository holds others of the same checkpoint."""

Figures = Mapping[tuple[str, str, str], float]
"""Top-1 in percent by (regime, variant, benchmark)."""


@dataclass(frozen=True)
class Claim:
    """A published difference: ``variant`` against ``reference`` on ``benchmark`` of ``regime``.

    ``matched`` is the baseline of the same seed, where the paper compares with another one. ``ran``: what the
    published code really trained or evaluated.
    """

    variant: str
    benchmark: str
    ran: str
    regime: str = "mixed"
    reference: str = "baseline_seed42"
    matched: str | None = "baseline"


DEAD_LD = "FWM and HW alone: the latent-dynamics term had no gradient"
UNTRAINED = "evaluated the EMA copy, which was never updated: a random initialisation"
BROKEN_MASKS = "motion maps scaled along the wrong axis; a smaller part of the clip hidden"
UCF = {"regime": "ucf101", "reference": "baseline", "matched": None}
CLAIMS = (
    Claim("fwm_hw_ld", "imagenet100", DEAD_LD),
    Claim("fwm_hw_ld", "ssv2", DEAD_LD),
    Claim("fwm_hw_ld", "diving48", DEAD_LD),
    Claim("ld", "ssv2", "as named"),
    Claim("fwm", "imagenet100", "early layers made slow, no split of a level's channels"),
    Claim("fwm_ld", "imagenet100", "as named, split between layers"),
    Claim("hw_ld", "imagenet100", "HW alone: the latent-dynamics term had no gradient"),
    Claim("motion_guided", "diving48", BROKEN_MASKS, **UCF),  # type: ignore[arg-type]
    Claim("motion_guided", "imagenet100", BROKEN_MASKS, **UCF),  # type: ignore[arg-type]
    Claim("motion_guided", "ssv2", BROKEN_MASKS, **UCF),  # type: ignore[arg-type]
    Claim("kinematic", "diving48", UNTRAINED, **UCF),  # type: ignore[arg-type]
    Claim("kinematic", "imagenet100", UNTRAINED, **UCF),  # type: ignore[arg-type]
    Claim("kinematic", "synth8", UNTRAINED + "; 40 test clips", **UCF),  # type: ignore[arg-type]
)
HEADLINE = ("imagenet100", "ssv2", "diving48")
"""Benchmarks whose differences of FWM-HW-LD the paper adds up to its net gain."""
LOSS_POINTS = 5.0


def read_published(path: Path) -> Figures:
    """Figures of the main probes. Raises UserError if the file is not the table of published results."""
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return {
            (row["regime"], row["variant"], row["benchmark"]): float(row["value"])
            for row in rows
            if row["probe"] in MAIN_PROBES.get(row["benchmark"], ())
        }
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"published={path}: not a table of published results ({error})") from error


def published_section(figures: Figures, comparisons: Sequence[ProbeComparison]) -> Section:
    """Every claim with its arithmetic, what was really run, and the same comparison in our study."""
    ours = {(one.encoder, one.task): one for one in comparisons}
    columns = [Column("published"), Column("seed-matched"), Column("what really ran"), Column("ours, corrected")]
    table = Table("claims", "Differences to the baseline in points of top-1", columns)
    for claim in CLAIMS:
        task = COUNTERPART.get(claim.benchmark)
        found = None if task is None else ours.get((claim.variant, task))
        label = f"{title_of(claim.variant)} on {SHOWN[claim.benchmark]} ({claim.regime})"
        published = _signed(_difference(figures, claim, claim.reference))
        matched = "-" if claim.matched is None else _signed(_difference(figures, claim, claim.matched))
        table.add(label, [published, matched, claim.ran, "not run" if found is None else _ours(found)])
    notes = "".join(f"<p>{sentence}</p>" for sentence in [*_sums(figures), _what_ran(ours)])
    note = (
        "Ours: the corrected objective on the sprites' counterpart of the benchmark (appearance for ImageNet-100, "
        "motion for Diving-48, relations for SSv2). It replicates the method, not the data set."
    )
    body = f'<p class="soft">{note}</p>{to_html(table)}{notes}'
    return Section("claims", "The paper's claims", body, [table, _published_table(figures)])


def _difference(figures: Figures, claim: Claim, reference: str) -> float | None:
    variant = figures.get((claim.regime, claim.variant, claim.benchmark))
    other = figures.get((claim.regime, reference, claim.benchmark))
    return None if variant is None or other is None else variant - other


def _signed(value: float | None) -> str:
    return "no figure" if value is None else f"{value:+.2f}".replace("-", "−")


def _ours(one: ProbeComparison) -> str:
    interval = Estimate(one.difference.difference, one.difference.low, one.difference.high, one.seeds)
    if one.seeds < 2:
        return f"{percent(interval)} (one seed)"
    verdict = f"p = {one.p_value:.3f}" if one.significant else f"p = {one.p_value:.2f}, not to be told from noise"
    return f"{percent(interval)} ({one.seeds} seeds, {verdict})"


def _sums(figures: Figures) -> list[str]:
    """The net gain of the abstract, and how many variants lose on ImageNet-100 against either baseline."""
    headline = [Claim("fwm_hw_ld", benchmark, DEAD_LD) for benchmark in HEADLINE]
    parts = [_difference(figures, claim, claim.reference) for claim in headline]
    sentences = []
    if all(part is not None for part in parts):
        known = [part for part in parts if part is not None]
        terms, where = " ".join(_signed(part) for part in known), ", ".join(SHOWN[name] for name in HEADLINE)
        sentences.append(f"The net gain of FWM-HW-LD over {where}: {terms} = {_signed(sum(known))} points.")
    variants = {variant for regime, variant, _ in figures if regime == "mixed" and not variant.startswith("baseline")}
    complete = [v for v in sorted(variants) if all(("mixed", v, benchmark) in figures for benchmark in HEADLINE)]
    losses = [
        sum(
            figures["mixed", v, "imagenet100"] - figures["mixed", reference, "imagenet100"] < -LOSS_POINTS
            for v in complete
        )
        for reference in ("baseline_seed42", "baseline")
        if ("mixed", reference, "imagenet100") in figures
    ]
    if len(losses) == 2:
        sentences.append(
            f"Of the {len(complete)} mixed variants with all three figures, {losses[0]} lose more than "
            f"{LOSS_POINTS:.0f} points on ImageNet-100 against the baseline of seed 42, {losses[1]} against the one "
            "of their own seed."
        )
    return sentences


def _what_ran(ours: Mapping[tuple[str, str], ProbeComparison]) -> str:
    found = [f"{task} {_ours(one)}" for (name, task), one in ours.items() if name == "fwm_hw"]
    if not found:
        return "FWM-HW, what the published FWM-HW-LD amounts to, was not run."
    return f"FWM-HW, what the published FWM-HW-LD amounts to, in our study: {'; '.join(found)}."


def _published_table(figures: Figures) -> Table:
    benchmarks = [name for name in SHOWN if any(benchmark == name for *_, benchmark in figures)]
    table = Table(
        "published", "Published top-1 in percent, one seed each", [Column(SHOWN[name]) for name in benchmarks]
    )
    for regime, variant in dict.fromkeys((regime, variant) for regime, variant, _ in figures):
        cells = [figures.get((regime, variant, benchmark)) for benchmark in benchmarks]
        table.add(f"{variant} ({regime})", [None if cell is None else f"{cell:.2f}" for cell in cells])
    return table
