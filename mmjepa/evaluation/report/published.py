"""The paper's figures, as found in the reference repository (results/published.csv); one pretraining seed each."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmjepa.errors import UserError
from mmjepa.evaluation.report.tables import Column, Table

COUNTERPART = {"imagenet100": "appearance", "diving48": "motion", "ssv2": "relations"}
"""Our task that asks what a published benchmark asks."""
SHOWN = {"imagenet100": "ImageNet-100", "diving48": "Diving-48", "ssv2": "SSv2", "synth8": "synthetic directions"}
SHORT = {"imagenet100": "IN-100", "diving48": "D-48", "ssv2": "SSv2"}
MAIN_PROBES = {
    "imagenet100": ("linear_gap",),
    "diving48": ("attentive_all_tokens",),
    "ssv2": ("attentive_on_gap_vector",),
    "synth8": ("attentive_all_tokens",),
}
"""The probe behind the published tables; the repository holds others of the same checkpoint."""
REFERENCES = {"mixed": "baseline_seed42", "ucf101": "baseline"}
"""The baseline that the paper compares with, by regime: in the mixed one it has another seed than the variants."""


@dataclass(frozen=True)
class PublishedFigures:
    """Top-1 in percent by (regime, variant, benchmark)."""

    top1: Mapping[tuple[str, str, str], float]

    def variants(self, regime: str) -> list[str]:
        """Variants of a regime, baselines left out."""
        return sorted({name for where, name, _ in self.top1 if where == regime and not name.startswith("baseline")})

    def of(self, regime: str, variant: str, benchmark: str) -> float | None:
        """One figure; None if it was not published."""
        return self.top1.get((regime, variant, benchmark))

    def beside(self, variant: str, task: str) -> str | None:
        """What to set beside our ``variant`` on ``task``: figure and difference to the published baseline.

        Of the mixed regime where it has one, else of the UCF-101 regime, which is then named.
        """
        benchmark = next(name for name, ours in COUNTERPART.items() if ours == task)
        for regime, reference in REFERENCES.items():
            name = reference if variant == "baseline" else variant
            value, base = self.of(regime, name, benchmark), self.of(regime, reference, benchmark)
            if value is not None and base is not None:
                difference = "" if name == reference else f" ({signed(value - base)})"
                return f"{value:.2f}{difference}{' UCF' if regime == 'ucf101' else ''}"
        return None

    def table(self) -> Table:
        """Every figure of the main probes."""
        benchmarks = [name for name in SHOWN if any(benchmark == name for *_, benchmark in self.top1)]
        columns = [Column(SHOWN[name]) for name in benchmarks]
        table = Table("published", "Published top-1 in percent, one seed each", columns)
        for regime, variant in dict.fromkeys((regime, variant) for regime, variant, _ in self.top1):
            cells = [self.of(regime, variant, benchmark) for benchmark in benchmarks]
            table.add(f"{variant} ({regime})", [None if cell is None else f"{cell:.2f}" for cell in cells])
        return table


def read_published(path: Path) -> PublishedFigures:
    """Figures of the main probes. Raises UserError if the file is not the table of published results."""
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return PublishedFigures(
            {
                (row["regime"], row["variant"], row["benchmark"]): float(row["value"])
                for row in rows
                if row["probe"] in MAIN_PROBES.get(row["benchmark"], ())
            }
        )
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"published={path}: not a table of published results ({error})") from error


def counterpart(task: str) -> str | None:
    """Short name of the published benchmark that asks what our task asks; None if there is none."""
    return next((SHORT[name] for name, ours in COUNTERPART.items() if ours == task), None)


def signed(value: float, digits: int = 2) -> str:
    """``+5.92``, ``−0.30``."""
    return f"{value:+.{digits}f}".replace("-", "−")
