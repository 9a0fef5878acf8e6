"""The data configurations that ship with the project."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from mmjepa.config import CONFIG_DIR, load_config
from mmjepa.data.config import DataConfig


@dataclass
class Root:
    """A program's configuration as far as data goes."""

    data: DataConfig


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONFIG_DIR / "data").glob("*.yaml")))
def test_every_data_configuration_is_complete(name: str) -> None:
    assert load_config(f"data/{name}", Root).data.sources


@pytest.mark.parametrize("name", ["sprites", "sprites_mixed"])
def test_sprites_are_never_flipped(name: str) -> None:
    """Left and right are part of their labels and captions."""
    assert load_config(f"data/{name}", Root).data.augmentation.flip == 0


def test_one_weight_can_be_overridden() -> None:
    config = load_config("data/sprites_mixed", Root, ["data.sources.motion.weight=3"]).data
    assert {name: source.weight for name, source in config.sources.items()} == {
        "appearance": 0.2,
        "motion": 3,
        "relations": 0.4,
    }
