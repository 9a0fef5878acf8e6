"""Finding golden files: `pytest tests/golden --golden DIR` checks any folder of them in the published format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

PATTERNS = ("model_*.npz", "objectives_*.npz", "sigreg_*.npz")


def golden_folder(config: pytest.Config) -> Path:
    chosen = config.getoption("golden", default=None)
    return Path(chosen) if chosen else Path(__file__).parent


def golden_files(config: pytest.Config, pattern: str) -> list[Path]:
    """Golden files of the chosen folder; an explicitly chosen folder without a single one is a mistake, not a pass."""
    folder = golden_folder(config)
    if not any(folder.glob("*.npz")):
        raise pytest.UsageError(f"--golden {folder}: no golden files (*.npz) there")
    if strange := [path.name for path in folder.glob("*.npz") if not any(path.match(known) for known in PATTERNS)]:
        raise pytest.UsageError(f"--golden {folder}: no test for {', '.join(strange)}; known are {', '.join(PATTERNS)}")
    return sorted(folder.glob(pattern))


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}
