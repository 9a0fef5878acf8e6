"""Result files: tidy JSON with what was measured (``rows``) and everything needed to measure it again (``meta``)."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mmjepa.data.manifest import source_commit
from mmjepa.errors import UserError

PACKAGES = ("torch", "numpy", "open_clip_torch", "sentence-transformers", "decord")


def result_path(out: str) -> Path:
    """The file that ``out`` names. Raises UserError unless it is a .json file in a folder that can be made."""
    path = Path(out)
    if path.suffix != ".json":
        raise UserError(f"out={out}: name a .json file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={out}: cannot make its folder ({error.strerror})") from error
    return path


def write_results(
    path: Path,
    program: str,
    config: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    examples: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write rows (and example retrievals, if any) atomically; ``facts`` are further entries of ``meta``."""
    meta = {
        "program": program,
        "command": sys.argv,
        "config": config,
        "commit": source_commit(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        **facts,
    }
    document = {"meta": meta, "rows": list(rows), **({"examples": list(examples)} if examples else {})}
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    os.replace(partial, path)
