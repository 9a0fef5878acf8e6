"""The study of the objectives: what probes read of every variant, beside the seed-matched baseline and random init.

Variants with several seeds are tested; those with one seed are shown and never claimed.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from mmjepa.evaluation.report.probe_clips import ProbeComparison, Readings, compare_probes
from mmjepa.evaluation.report.rows import CONTROL_ENCODERS, table_order

REFERENCE = "baseline"
UNTRAINED = "random_init"

FACTORS = ("appearance", "dynamics")
"""Of an encoder of which one factor's channels were probed alone, as ``<encoder>_<factor>``."""

Compared = Mapping[tuple[str, str], ProbeComparison]
"""By (encoder, task)."""


@dataclass(frozen=True)
class Study:
    """Comparisons of a study. Each mapping is one family of Holm's correction.

    ``several``, ``single``: variants minus the baseline, by whether they share several seeds with it or one;
    ``above_untrained``: the baseline and the variants of ``several`` minus random init; ``untrained``: random init
    minus the baseline.
    """

    readings: Readings
    several: Compared
    single: Compared
    above_untrained: Compared
    untrained: Compared

    @property
    def tasks(self) -> list[str]:
        """All tasks that were probed."""
        return self.readings.tasks

    def variants(self, compared: Compared) -> list[str]:
        """Encoders of a family, in table order."""
        return sorted({encoder for encoder, _ in compared}, key=table_order)

    def find(self, encoder: str, task: str) -> ProbeComparison | None:
        """The comparison with the baseline, whichever family it is of."""
        key = (encoder, task)
        return self.several.get(key) or self.single.get(key) or self.untrained.get(key)

    def learned(self, task: str) -> bool | None:
        """Whether some encoder is above random init on the task.

        True: significantly. False: no interval of several seeds lies above zero, corrected or not. None: in between,
        or not measured.
        """
        found = [one for one in on_task(self.above_untrained, task) if one.seeds > 1]
        if any(one.significant and one.difference.difference > 0 for one in found):
            return True
        return None if not found or any(one.difference.low > 0 for one in found) else False


def on_task(compared: Compared, task: str) -> list[ProbeComparison]:
    """Comparisons on one task, the largest difference first."""
    return sorted((one for one in compared.values() if one.task == task), key=lambda one: -one.difference.difference)


def make_study(readings: Readings | None) -> Study | None:
    """The study that the readings hold; None unless a variant was probed beside the baseline, clips kept."""
    if readings is None:
        return None
    clips = readings.clips
    whole = (name for name in clips if name not in CONTROL_ENCODERS and factor_of(name, clips) is None)
    trained = sorted(whole, key=table_order)
    seeds = {name: len(clips[name].keys() & clips.get(REFERENCE, {}).keys()) for name in trained}
    replicated = [name for name in trained if seeds[name] > 1]
    several = _family(replicated, REFERENCE, readings)
    single = _family([name for name in trained if seeds[name] == 1], REFERENCE, readings)
    if not several and not single:
        return None
    untrained = _family([UNTRAINED], REFERENCE, readings)
    return Study(readings, several, single, _family(replicated, UNTRAINED, readings), untrained)


def factor_of(name: str, encoders: Container[str]) -> str | None:
    """The encoder whose factor alone ``name`` is; None if it is an encoder of its own."""
    encoder, _, factor = name.rpartition("_")
    return encoder if factor in FACTORS and encoder in encoders else None


def _family(encoders: Sequence[str], other: str, readings: Readings) -> Compared:
    return {(one.encoder, one.task): one for one in compare_probes(encoders, other, readings.clips)}
