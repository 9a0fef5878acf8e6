"""One process group for all trainings inside the test process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def one_rank() -> Iterator[None]:
    """A process group of one; whoever comes first in the test process opens it, and all others share it."""
    from mmjepa.training.launch import processes

    with processes(accumulation=1):
        yield
