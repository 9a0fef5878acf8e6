"""Splits and configurations for the tests of the data path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from numbered_clips import MEAN, SIDE, STD, image_sample, video_sample, write_split

from mmjepa.data.config import AugmentationConfig, DataConfig, SourceConfig
from mmjepa.data.samples import Sample


@pytest.fixture(scope="session")
def twelve_videos() -> list[Sample]:
    """Videos 0 to 11 of 32 frames each."""
    return [video_sample(number) for number in range(12)]


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory, twelve_videos: list[Sample]) -> Path:
    """An undamaged split of three shards of four videos; tests must not change it."""
    return write_split(tmp_path_factory.mktemp("data") / "videos", twelve_videos)


@pytest.fixture(scope="session")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undamaged split of six stills, numbers 100 to 105."""
    return write_split(tmp_path_factory.mktemp("data") / "stills", map(image_sample, range(100, 106)), kind="image")


@pytest.fixture
def make_config() -> Callable[..., DataConfig]:
    """Configuration of uncropped 4-frame clips from the given splits ({name: (path, weight)}); keywords override."""

    def make(sources: dict[str, tuple[Path, float]], **changes: object) -> DataConfig:
        values: dict[str, object] = {
            "root": "",
            "sources": {name: SourceConfig(str(path), weight) for name, (path, weight) in sources.items()},
            "frames": 4,
            "stride": 2,
            "clips_per_decode": 1,
            "resolution": SIDE,
            "mean": MEAN,
            "std": STD,
            "augmentation": AugmentationConfig(area=[1.0, 1.0], aspect=[1.0, 1.0], flip=0.0),
            "workers": 0,
            "prefetch": 2,
            "max_failures_in_row": 100,
        }
        return DataConfig(**(values | changes))  # type: ignore[arg-type]

    return make
