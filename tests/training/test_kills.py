"""The short version of ``kills.py``."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import HERE, start


@pytest.mark.slow
def test_a_run_that_is_killed_twice_ends_as_one_that_is_not(tmp_path: Path) -> None:
    result = start(HERE / "kills.py", f"folder={tmp_path / 'runs'}", "kills=2")
    assert result.returncode == 0, result.stderr + result.stdout
    assert "2 kills: curve equal, files True" in result.stdout
