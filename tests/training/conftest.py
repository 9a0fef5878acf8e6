"""One process group for all trainings inside the test process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import HERE, Train
from toy import ToyConfig, ToyTask

from mmjepa.config import load_config
from mmjepa.training.engine import run_training
from mmjepa.training.launch import processes


@pytest.fixture(scope="session")
def one_rank() -> Iterator[None]:
    """A process group of one, shared by all trainings of the test process."""
    with processes(accumulation=1):
        yield


@pytest.fixture
def train_toy(one_rank: None) -> Train:
    """Train the toy task in this process; returns the task as it ended."""

    def train(run: Path, *overrides: str) -> ToyTask:
        config = load_config("toy", ToyConfig, [f"run={run}", *overrides], HERE)
        tasks: list[ToyTask] = []

        def build(device: object) -> ToyTask:
            tasks.append(ToyTask(config))
            return tasks[0]

        run_training(config, build)
        return tasks[0]

    return train
