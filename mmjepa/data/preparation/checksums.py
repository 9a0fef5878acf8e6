"""SHA-256 sums of media files, as sha256sum writes them: the only thing that shows every damage of a download."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from mmjepa.data.preparation.raw import read_lines
from mmjepa.data.preparation.records import ParquetRow, Record
from mmjepa.errors import UserError

_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")


class Checksums:
    """The sums of a file of lines ``sha256  path``; paths are relative to it. Raises UserError for any other line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sums: dict[str, str] = {}
        for line in read_lines(path):
            matched = _LINE.fullmatch(line)
            if matched is None:
                raise UserError(f"{path}: {line[:80]!r} is no line of sha256sum")
            self._sums[os.path.abspath(path.parent / matched[2])] = matched[1].lower()

    def of(self, records: Sequence[Record]) -> tuple[str, ...]:
        """The sum of each record's file. Raises UserError if one has none: nothing would be known of that file."""
        if any(isinstance(record.media, ParquetRow) for record in records):
            raise UserError("checksums are of loose files: check parquet files with sha256sum -c")
        places = [os.path.abspath(record.media) for record in records if isinstance(record.media, Path)]
        unlisted = [place for place in places if place not in self._sums]
        if unlisted:
            raise UserError(f"{self.path}: has no line for {len(unlisted)} files, e.g. {unlisted[0]}")
        return tuple(self._sums[place] for place in places)
