"""The feature cache: made once, whole or not at all, and the same numbers afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mmjepa.data.samples import ClipBatch
from mmjepa.errors import UserError
from mmjepa.frozen import FeatureStore, Tokens


def batches(sizes: tuple[int, ...] = (3, 2)) -> Iterator[ClipBatch]:
    number = 0
    for size in sizes:
        keys = [f"clip-{number + row}" for row in range(size)]
        yield ClipBatch(
            stored=torch.arange(number, number + size).float()[:, None, None, None, None].expand(-1, 3, 2, 4, 4),
            timestamps=torch.zeros(size, 2),
            frame_mask=torch.ones(size, 2, dtype=torch.bool),
            metas=[{"captions": [f"about {key}"], "big": "not stored"} for key in keys],
            keys=keys,
        )
        number += size


def encode(clips: ClipBatch, condition: str) -> Tokens:
    """Token value = clip number, + 100 under the condition "lossy", whose second step is absent."""
    numbers = clips.pixels[:, 0, 0, 0, 0] + (100 if condition == "lossy" else 0)
    present = torch.tensor([True, condition == "clean"]).expand(len(clips), 2)
    return Tokens(numbers[:, None, None, None].expand(-1, 2, 3, 5), present)


def test_rows_come_back_in_any_order_from_all_conditions(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    assert not store.has("encoder", "data", "clean")
    store.fill("encoder", "data", ["clean", "lossy"], batches(), encode)
    clean, lossy = (store.read("encoder", "data", name) for name in ("clean", "lossy"))
    assert clean is not None
    assert lossy is not None
    assert len(clean) == 5
    assert clean.token_shape == (2, 3, 5)
    assert clean.keys[3] == "clip-3"
    assert clean.captions[3] == ["about clip-3"]
    assert clean.rows([4, 0, 3]).tokens[:, 1, 2, 4].tolist() == [4.0, 0.0, 3.0]
    assert lossy.rows([2]).tokens.unique().tolist() == [102.0]
    assert lossy.rows([2]).present.tolist() == [[True, False]]
    assert clean.rows([1]).tokens.dtype == torch.float32


def test_another_encoder_or_data_set_is_another_entry(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.fill("encoder", "data", ["clean"], batches(), encode)
    for key in (("other", "data", "clean"), ("encoder", "other", "clean"), ("encoder", "data", "lossy")):
        assert not store.has(*key)


def test_an_interrupted_fill_leaves_nothing_behind(tmp_path: Path) -> None:
    def fails(clips: ClipBatch, condition: str) -> Tokens:
        if "clip-3" in clips.keys:
            raise KeyboardInterrupt
        return encode(clips, condition)

    store = FeatureStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        store.fill("encoder", "data", ["clean"], batches(), fails)
    assert not store.has("encoder", "data", "clean")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e5])
def test_features_that_float16_cannot_hold_are_refused(tmp_path: Path, value: float) -> None:
    def broken(clips: ClipBatch, condition: str) -> Tokens:
        features = encode(clips, condition)
        return Tokens(torch.full_like(features.tokens, value), features.present)

    with pytest.raises(UserError, match="float16"):
        FeatureStore(tmp_path).fill("encoder", "data", ["clean"], batches(), broken)
