"""What a data set says of its samples before anything is decoded: records, and splits made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmjepa.errors import UserError


@dataclass(frozen=True)
class ParquetRow:
    """One row of a parquet file: ``row`` counts within row group ``group``."""

    path: Path
    group: int
    row: int

    @property
    def name(self) -> str:
        """How messages and digests call it."""
        return f"{self.path.name}[{self.group}:{self.row}]"


@dataclass(frozen=True)
class Record:
    """One sample to be: ``id`` is unique in its split; ``window`` is the part of the file that it takes, in seconds.

    ``label`` is None, and ``label_name`` empty, where the data set has no classes. ``details`` go into the sample's
    JSON as they are.
    """

    id: str
    media: Path | ParquetRow
    label: int | None = None
    label_name: str = ""
    captions: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    window: tuple[float, float] | None = None

    def meta(self, source: str, split: str) -> dict[str, Any]:
        """The sample's JSON (docs/architecture.md, "Data on disk")."""
        labelled = {"label": self.label, "label_name": self.label_name, "captions": list(self.captions)}
        return {**labelled, "source": source, "split": split, "id": self.id, **self.details}


@dataclass(frozen=True)
class LeftOut:
    """A sample that the annotations name and the split does not hold, and why."""

    id: str
    file: str
    reason: str


@dataclass(frozen=True)
class SplitPlan:
    """A split as its annotations describe it: the samples whose files are there, and those whose files are not.

    ``folder``: name of its folder, which is what training and evaluation call it; ``split``: what the data set itself
    calls it; ``annotations``: the files that were read; ``published``: how many samples they should name, None where
    nobody has said.
    """

    source: str
    folder: str
    split: str
    kind: str
    records: Sequence[Record]
    missing: Sequence[LeftOut] = ()
    annotations: Sequence[Path] = ()
    published: int | None = None

    def __post_init__(self) -> None:
        """Refuse two samples of one key: evaluation draws by key, and WebDataset joins files by it."""
        keys = Counter(self.key(record) for record in self.records)
        twice = [key for key, times in keys.items() if times > 1]
        if twice:
            raise UserError(f"{self.folder}: {len(twice)} ids are named twice in the annotations, e.g. {twice[0]}")

    @property
    def named(self) -> int:
        """Number of samples that the annotations name."""
        return len(self.records) + len(self.missing)

    def key(self, record: Record) -> str:
        """The sample's key: unique over splits that are searched together, without dots and slashes."""
        return f"{self.folder}-{record.id}".replace(".", "_").replace("/", "_")


def split_up(records: Iterable[Record | LeftOut]) -> tuple[list[Record], list[LeftOut]]:
    """Records whose files are there, and what is missing, each in the order given."""
    present: list[Record] = []
    missing: list[LeftOut] = []
    for one in records:
        if isinstance(one, Record):
            present.append(one)
        else:
            missing.append(one)
    return present, missing
