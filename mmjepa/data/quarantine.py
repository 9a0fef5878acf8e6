"""The list of what could not be used, kept on disk by name and reason, and counted."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from mmjepa.data.samples import Failure

log = logging.getLogger(__name__)


class Quarantine:
    """Counts failures and appends each newly seen sample or shard to a JSON-lines file: {"shard", "key", "reason"}.

    path: the file, created at the first failure and continued if it exists (a resumed run does not list a sample
    twice); None only counts. One process writes one file: give each rank its own.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.count = 0
        """Failures met by this process, repeats of the same sample included."""
        self._path = path
        self._seen: set[tuple[str, str | None]] = set()
        if path is not None and path.exists():
            self._seen = {(row["shard"], row["key"]) for row in _complete_rows(path)}

    @property
    def names(self) -> list[str]:
        """Each sample (or shard) met so far, ``shard`` or ``shard:key``, sorted."""
        return sorted(shard if key is None else f"{shard}:{key}" for shard, key in self._seen)

    def record(self, failures: Iterable[Failure]) -> None:
        """Count all ``failures``; list and log those not seen before."""
        for failure in failures:
            self.count += 1
            name = (failure.shard, failure.key)
            if name in self._seen:
                continue
            self._seen.add(name)
            what = failure.shard if failure.key is None else f"{failure.key} in {failure.shard}"
            log.warning("skipped %s: %s", what, failure.reason)
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a") as file:
                    file.write(json.dumps(asdict(failure)) + "\n")


def _complete_rows(path: Path) -> list[dict[str, str]]:
    """The rows of the file, after cutting off a last line that a killed process left half written."""
    text = path.read_bytes()
    complete = text[: text.rfind(b"\n") + 1]
    if len(complete) < len(text):
        with path.open("r+b") as file:
            file.truncate(len(complete))
    return [json.loads(line) for line in complete.splitlines()]
