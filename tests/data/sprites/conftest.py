"""Scenes and their stored ground truth, drawn once for all tests of the embedded benchmark."""

from __future__ import annotations

from typing import Any

import pytest

from mmjepa.data.sprites.draw import draw_scene
from mmjepa.data.sprites.samples import ground_truth

COUNT = 960  # a multiple of 48 and 16: every class equally often


def _truths(kind: str, split: str) -> list[dict[str, Any]]:
    return [ground_truth(draw_scene(kind, index, split, seed=3), captions=4) for index in range(COUNT)]


@pytest.fixture(scope="session")
def motion_test() -> list[dict[str, Any]]:
    """Ground truth of 960 test clips of fine motion."""
    return _truths("motion", "test")


@pytest.fixture(scope="session")
def relations_test() -> list[dict[str, Any]]:
    """Ground truth of 960 test clips of relations."""
    return _truths("relations", "test")
