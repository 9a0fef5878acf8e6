"""The folder of a run: what was asked for, by which code, and whether it may be continued.

config.yaml  metrics.jsonl  tensorboard/  checkpoints/  encoder/ (or what the task exports)
skipped.jsonl: steps that were not finite, with their samples, if there were any
meta.json: provenance of the first start and, under "continued", of every later one
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from mmjepa.config import config_hash, save_yaml, to_dict
from mmjepa.errors import UNWRITABLE, UserError
from mmjepa.training.checkpoint import complete_checkpoints, read_state
from mmjepa.training.config import RUNTIME_GROUPS, RUNTIME_KEYS, TrainingConfig

PACKAGES = ("torch", "deepspeed", "webdataset", "decord", "numpy", "mmjepa")
SHOWN_DIFFERENCES = 5


class RunFolder:
    """Paths of a run, and the check that a continued run is the same run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        self.skipped = path / "skipped.jsonl"
        self.tensorboard = path / "tensorboard"

    def check_continues(self, config: TrainingConfig) -> None:
        """Raise UserError, naming the keys, if the folder holds a checkpoint of another configuration."""
        found = complete_checkpoints(self.checkpoints)
        if not found:
            return
        saved, asked = dict(_flat(read_state(found[-1])["config"])), dict(_flat(to_dict(config)))
        differing = [
            f"{key}={saved.get(key)} there, {asked.get(key)} here"
            for key in sorted(saved.keys() | asked.keys())
            if not may_change(key) and saved.get(key) != asked.get(key)
        ]
        if differing:
            shown = "; ".join(differing[:SHOWN_DIFFERENCES]) + ("; ..." if len(differing) > SHOWN_DIFFERENCES else "")
            raise UserError(f"{self.path} holds a run of another configuration ({shown}); give another run=...")

    def open(self, config: TrainingConfig, world: int) -> None:
        """Create the folder and write the resolved configuration and the provenance (rank 0)."""
        with self.writing():
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            save_yaml(config, self.path / "config.yaml")
            meta = self.path / "meta.json"
            facts = provenance(config, world)
            if complete_checkpoints(self.checkpoints) and meta.exists():
                first = json.loads(meta.read_text())
                facts = {**first, "continued": [*first.get("continued", []), facts]}
            temporary = meta.with_suffix(".tmp")
            temporary.write_text(json.dumps(facts, indent=1) + "\n")
            os.replace(temporary, meta)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Within, a disk that is full or must not be written ends in one line that says which checkpoint is kept."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            if isinstance(error, OSError) and error.errno not in UNWRITABLE:
                raise
            reason = error.strerror if isinstance(error, OSError) else error
            kept = complete_checkpoints(self.checkpoints) if self.checkpoints.is_dir() else []
            state = f"; {kept[-1].name} is kept" if kept else ""
            raise UserError(f"cannot write into run={self.path}: {reason}{state}") from error


def may_change(key: str) -> bool:
    """Whether the setting of this dotted name may change when a run is continued."""
    return key in RUNTIME_KEYS or key.split(".")[0] in RUNTIME_GROUPS


def provenance(config: TrainingConfig, world: int) -> dict[str, Any]:
    """Everything needed to say which code produced a run."""
    return {
        "command": sys.argv,
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "config_hash": config_hash(config),
        "seed": config.seed,
        "world": world,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Output of a git command in the source tree; None where there is no git or no repository."""
    try:
        result = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
