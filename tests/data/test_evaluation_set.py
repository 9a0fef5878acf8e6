"""Evaluation clips: all samples, in file order, frames spread over the whole video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from numbered_clips import MEAN, STD, read_numbers, video_sample, write_split

from mmjepa.data.evaluation_set import EvaluationSet
from mmjepa.errors import UserError


def evaluation_set(*paths: Path, **changes: Any) -> EvaluationSet:
    options = {"frames": 5, "resolution": 64, "mean": MEAN, "std": STD, "batch": 5, "workers": 0}
    return EvaluationSet(list(paths), **(options | changes))


@pytest.mark.parametrize("workers", [0, 2])
def test_file_order_and_even_frames(videos: Path, workers: int) -> None:
    batches = list(evaluation_set(videos, workers=workers))
    assert [len(batch) for batch in batches] == [5, 5, 2]
    assert [key for batch in batches for key in batch.keys] == [f"clip-{n:03d}" for n in range(12)]
    for batch in batches:
        assert batch.frame_mask.all()
        for clip, meta in zip(batch.pixels, batch.metas, strict=True):
            assert read_numbers(clip) == [(meta["label"], frame) for frame in (0, 8, 16, 23, 31)]
        assert torch.equal(batch.timestamps[0], torch.tensor([0, 8, 16, 23, 31]) / 16)


def test_short_videos_hold_the_last_frame_and_say_so(tmp_path: Path) -> None:
    (batch,) = evaluation_set(write_split(tmp_path / "short", [video_sample(3, frames=3)]))
    assert [frame for _, frame in read_numbers(batch.pixels[0])] == [0, 1, 2, 2, 2]
    assert batch.frame_mask.tolist() == [[True, True, True, False, False]]


def test_several_splits_follow_one_another(videos: Path, tmp_path: Path) -> None:
    more = write_split(tmp_path / "more", [video_sample(30), video_sample(31)])
    joined = evaluation_set(videos, more)
    assert len(joined) == 14
    assert [key for batch in joined for key in batch.keys][-3:] == ["clip-011", "clip-030", "clip-031"]
    assert joined.fingerprint != evaluation_set(videos).fingerprint


def test_stills_are_clips_of_one_frame(stills: Path) -> None:
    batches = list(evaluation_set(stills))
    assert batches[0].pixels.shape == (5, 3, 1, 64, 64)
    assert [read_numbers(clip)[0][0] for batch in batches for clip in batch.pixels] == list(range(100, 106))


def test_stills_and_videos_cannot_be_joined(videos: Path, stills: Path) -> None:
    with pytest.raises(UserError, match="one kind"):
        evaluation_set(videos, stills)


def test_a_limit_takes_a_fixed_subset_in_order(videos: Path) -> None:
    first, second = ([key for batch in evaluation_set(videos, limit=6) for key in batch.keys] for _ in range(2))
    assert first == second == sorted(set(first))
    assert len(first) == 6
    assert evaluation_set(videos, limit=6).fingerprint != evaluation_set(videos).fingerprint
