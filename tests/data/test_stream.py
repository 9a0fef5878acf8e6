"""Training batches: right frames, same content for any workers, ranks and start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from numbered_clips import image_sample, read_numbers, video_sample, write_split
from scipy import stats

from mmjepa.data.config import AugmentationConfig, DataConfig, SourceConfig
from mmjepa.data.samples import ClipBatch, Sample
from mmjepa.data.stream import TrainStream
from mmjepa.errors import UserError

MakeConfig = Callable[..., DataConfig]
CROPPED = AugmentationConfig(area=[0.3, 1.0], aspect=[0.75, 1.35], flip=0.5)


def take(config: DataConfig, count: int, **options: int) -> list[ClipBatch]:
    options = {"seed": 0, "global_batch": 4} | options
    return list(islice(TrainStream(config, **options), count))  # type: ignore[arg-type]


def assert_same(left: list[ClipBatch], right: list[ClipBatch]) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys == b.keys
        assert torch.equal(a.pixels, b.pixels)
        assert torch.equal(a.timestamps, b.timestamps)


def test_clips_hold_the_frames_they_should(videos: Path, make_config: MakeConfig) -> None:
    """Pixels say which video and frame they are: key, stride and times must agree, at starts all over the video."""
    starts = set()
    for batch in take(make_config({"v": (videos, 1.0)}), 12):
        assert batch.pixels.shape == (4, 3, 4, 64, 64)
        assert batch.pixels.dtype == torch.float32
        assert batch.frame_mask.all()
        for clip, times, key, meta in zip(batch.pixels, batch.timestamps, batch.keys, batch.metas, strict=True):
            numbers = read_numbers(clip)
            video, start = numbers[0]
            assert numbers == [(video, start + 2 * step) for step in range(4)]
            assert key == f"clip-{video:03d}"
            assert meta == {"label": video}
            assert times.tolist() == [frame / 16 for _, frame in numbers]
            starts.add(start)
    assert min(starts) < 5
    assert max(starts) > 20
    assert len(starts) > 15


def test_pixels_are_normalised(videos: Path, make_config: MakeConfig) -> None:
    (batch,) = take(make_config({"v": (videos, 1.0)}), 1)
    channels = batch.pixels.transpose(0, 1).flatten(1)
    expected_black = -torch.tensor([0.4, 0.5, 0.6]) / torch.tensor([0.2, 0.25, 0.3])
    expected_white = (1 - torch.tensor([0.4, 0.5, 0.6])) / torch.tensor([0.2, 0.25, 0.3])
    assert torch.allclose(channels.quantile(0.02, dim=1), expected_black, atol=0.3)
    assert torch.allclose(channels.quantile(0.98, dim=1), expected_white, atol=0.3)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_workers_do_not_change_the_batches(videos: Path, make_config: MakeConfig, workers: int) -> None:
    config = make_config({"v": (videos, 1.0)}, augmentation=CROPPED)
    assert_same(take(replace(config, workers=workers), 6), take(config, 6))


def test_ranks_share_out_the_global_batch(videos: Path, make_config: MakeConfig) -> None:
    config = make_config({"v": (videos, 1.0)}, augmentation=CROPPED)
    first, second = (take(config, 5, rank=rank, world=2) for rank in range(2))
    for whole, left, right in zip(take(config, 5), first, second, strict=True):
        assert left.keys + right.keys == whole.keys
        assert torch.equal(torch.cat([left.pixels, right.pixels]), whole.pixels)


def test_starting_late_equals_skipping(videos: Path, stills: Path, make_config: MakeConfig) -> None:
    config = make_config({"v": (videos, 0.5), "s": (stills, 0.5)}, augmentation=CROPPED)
    assert_same(take(config, 3, start_step=5), take(config, 8)[5:])


def test_iterating_again_goes_on(videos: Path, make_config: MakeConfig) -> None:
    config = make_config({"v": (videos, 1.0)})
    stream = TrainStream(config, seed=0, global_batch=4)
    assert_same([*islice(stream, 2), *islice(stream, 2)], take(config, 4))
    assert stream.step == 4
    assert stream.clips == 16


def test_seeds_and_passes_differ(videos: Path, make_config: MakeConfig) -> None:
    config = make_config({"v": (videos, 1.0)})
    runs = [[read_numbers(clip) for batch in take(config, 6, seed=seed) for clip in batch.pixels] for seed in (0, 1)]
    assert runs[0] != runs[1]
    assert runs[0][:12] != runs[0][12:]


def test_torch_global_generator_is_left_alone(videos: Path, make_config: MakeConfig) -> None:
    """Resuming restores the global generator of a running job: starting the loader must not advance it."""
    before = torch.random.get_rng_state()
    take(make_config({"v": (videos, 1.0)}, workers=1), 1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_stills_and_videos_never_mix(videos: Path, stills: Path, make_config: MakeConfig) -> None:
    batches = take(make_config({"v": (videos, 0.5), "s": (stills, 0.5)}), 12)
    shapes = {batch.pixels.shape for batch in batches}
    assert shapes == {(4, 3, 1, 64, 64), (4, 3, 4, 64, 64)}
    for batch in batches:
        assert len({key.split("-")[0] for key in batch.keys}) == 1
        for clip, key in zip(batch.pixels, batch.keys, strict=True):
            assert read_numbers(clip)[0][0] == int(key.split("-")[1])


def test_several_clips_per_decode(videos: Path, make_config: MakeConfig) -> None:
    """Consecutive rows share a video but not the window, and every rank still gets whole groups."""
    config = make_config({"v": (videos, 1.0)}, clips_per_decode=2)
    batches = take(config, 6, global_batch=4)
    windows = [[read_numbers(clip) for clip in batch.pixels] for batch in batches]
    for a, b, c, d in windows:
        assert a[0][0] == b[0][0] != c[0][0] == d[0][0]
    assert sum(a != b for a, b, _, _ in windows) >= 4
    keys = [key for batch in batches for key in batch.keys[::2]]
    assert sorted(keys) == [f"clip-{number:03d}" for number in range(12)]
    with pytest.raises(UserError, match="does not divide"):
        TrainStream(config, seed=0, global_batch=6, world=2)


def test_short_videos_hold_the_last_frame_and_say_so(tmp_path: Path, make_config: MakeConfig) -> None:
    split = write_split(tmp_path / "short", [video_sample(number, frames=5) for number in range(4)])
    (batch,) = take(make_config({"v": (split, 1.0)}), 1)
    for clip, mask in zip(batch.pixels, batch.frame_mask, strict=True):
        assert [frame for _, frame in read_numbers(clip)] == [0, 2, 4, 4]
        assert mask.tolist() == [True, True, True, False]


def test_augmentation_is_the_same_for_all_frames(tmp_path: Path, make_config: MakeConfig) -> None:
    """A video whose frames are equal must stay so, while clips are cropped and flipped differently."""
    split = write_split(tmp_path / "still", [replace(image_sample(9), key=f"k{n}") for n in range(4)], kind="image")
    (pictures,) = take(make_config({"s": (split, 1.0)}, augmentation=CROPPED), 1)
    assert len({tuple(clip.flatten().tolist()) for clip in pictures.pixels}) == 4
    frozen = write_split(tmp_path / "frozen", [video_sample(1, frames=1)])
    (batch,) = take(make_config({"v": (frozen, 1.0)}, augmentation=CROPPED), 1)
    assert (batch.pixels == batch.pixels[:, :, :1]).all()


def test_missing_data_is_a_user_error(tmp_path: Path, make_config: MakeConfig) -> None:
    with pytest.raises(UserError, match="no such folder"):
        TrainStream(make_config({"v": (tmp_path / "absent", 1.0)}), seed=0, global_batch=4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"manifest\.json"):
        TrainStream(make_config({"v": (tmp_path / "empty", 1.0)}), seed=0, global_batch=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 0}, r"data\.frames"),
        ({"workers": -1}, r"data\.workers"),
        ({"std": [0.2, 0.0, 0.2]}, r"data\.std"),
    ],
)
def test_impossible_configurations_are_refused(make_config: MakeConfig, change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_config({"v": (Path("x"), 1.0)}, **change)


def test_no_sources_are_refused(make_config: MakeConfig) -> None:
    with pytest.raises(UserError, match=r"data\.sources is empty"):
        make_config({})


@pytest.mark.parametrize("weight", [0.0, -1.0, np.inf, np.nan])
def test_weights_must_be_positive(weight: float) -> None:
    with pytest.raises(UserError, match="weight must be positive"):
        SourceConfig("x", weight)


@pytest.mark.parametrize("values", [([0.0, 1.0], [1, 1], 0.0), ([0.5, 1.0], [2, 1], 0.0), ([0.5, 1.0], [1, 1], 1.5)])
def test_impossible_augmentations_are_refused(values: tuple) -> None:
    with pytest.raises(UserError, match=r"data\.augmentation"):
        AugmentationConfig(*values)


def test_changing_the_world_size_loses_and_repeats_nothing(videos: Path, make_config: MakeConfig) -> None:
    """Stopped after three steps on one rank and continued on two: the same global batches, exactly."""
    config = make_config({"v": (videos, 1.0)}, augmentation=CROPPED)
    first, second = (take(config, 4, rank=rank, world=2, start_step=3) for rank in range(2))
    later = [a.keys + b.keys for a, b in zip(first, second, strict=True)]
    assert [batch.keys for batch in take(config, 3)] + later == [batch.keys for batch in take(config, 7)]


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_a_mixture_is_read_in_its_weights_and_in_one_order(
    tmp_path: Path, twelve_videos: list[Sample], make_config: MakeConfig
) -> None:
    """0.2 / 0.6 / 0.2 over what arrives (chi-square), the same with one worker and with four."""
    clips = [replace(sample, media=video_sample(1, frames=1).media) for sample in twelve_videos]
    sources = {
        name: (write_split(tmp_path / name, [replace(c, key=f"{name}-{c.key}") for c in clips]), weight)
        for name, weight in (("a", 0.2), ("b", 0.6), ("c", 0.2))
    }
    config = make_config(sources, frames=1, augmentation=CROPPED)
    runs = [take(replace(config, workers=workers), 40, global_batch=15) for workers in (1, 4)]
    assert_same(*runs)
    drawn = [key[0] for batch in runs[0] for key in batch.keys]
    counts = [drawn.count(name) for name in "abc"]
    assert stats.chisquare(counts, [0.2 * len(drawn), 0.6 * len(drawn), 0.2 * len(drawn)]).pvalue > 0.001
