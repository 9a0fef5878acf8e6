"""Through decord come the frames that come through PyAV, and PyAV reads what decord does not."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import decord
import numpy as np
import pytest
import torch
from numbered_clips import encode_video, read_frame_numbers
from test_video import DECORD_FAILS, FILES, make

from mmjepa.data import video
from mmjepa.data.config import DataConfig
from mmjepa.data.decoding import Frames, decode
from mmjepa.data.quarantine import Quarantine
from mmjepa.data.samples import Sample, UnusableSample
from mmjepa.data.stream import TrainStream
from mmjepa.errors import UserError

MakeConfig = Callable[..., DataConfig]


def read(data: bytes, wanted: np.ndarray, decoder: str) -> Frames:
    return decode(Sample("clip", data, "mp4", {}), lambda count: np.minimum(wanted, count - 1), decoder)


def pyav_must_not_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("read by PyAV")

    monkeypatch.setattr(video, "read_frames", fail)


@pytest.mark.parametrize("name", sorted(FILES.keys() - DECORD_FAILS))
def test_both_readers_give_the_same_frames(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, wanted = make(name), np.random.default_rng(2).integers(0, 50, (2, 8))
    expected = read(data, wanted, "pyav")
    pyav_must_not_decode(monkeypatch)
    found = read(data, wanted, "decord")
    assert torch.equal(found.pixels, expected.pixels)
    assert torch.equal(found.timestamps, expected.timestamps)


@pytest.mark.parametrize("name", sorted(DECORD_FAILS))
def test_files_that_decord_cannot_read_rightly_come_through_pyav(name: str) -> None:
    wanted = np.random.default_rng(3).integers(0, 50, 9)
    found = read(make(name), wanted, "decord")
    assert read_frame_numbers(found.pixels.numpy()) == [(77, frame) for frame in wanted]


def test_an_edit_list_is_kept() -> None:
    found = read(encode_video(77, 50, skip=7), np.array([20, 3]), "decord")
    assert read_frame_numbers(found.pixels.numpy()) == [(77, 27), (77, 10)]


def test_random_choices_are_drawn_once_though_decord_fails() -> None:
    """decord opens the narrow file and fails at its pixels: PyAV is asked for the same frames."""
    drawn: list[np.ndarray] = []

    def choose(count: int) -> np.ndarray:
        drawn.append(np.random.default_rng(len(drawn)).integers(0, count, 5))
        return drawn[-1]

    found = decode(Sample("clip", make("h264-narrow"), "mp4", {}), choose, "decord")
    assert len(drawn) == 1
    assert [frame for _, frame in read_frame_numbers(found.pixels.numpy())] == drawn[0].tolist()


class Truncating(decord.VideoReader):
    """A decord that loses a frame."""

    def __len__(self) -> int:
        return super().__len__() - 1


class Late(decord.VideoReader):
    """A decord that shows frames too late, but for the first."""

    def get_frame_timestamp(self, indices: object) -> np.ndarray:
        times = super().get_frame_timestamp(indices)
        return times + 0.1 * (np.arange(len(times)) > 0)[:, None]


class Small(decord.VideoReader):
    """A decord that returns frames of half the size."""

    def get_batch(self, indices: object) -> object:
        return decord.nd.array(super().get_batch(indices).asnumpy()[:, ::2, ::2].copy())


@pytest.mark.parametrize("misbehaving", [Truncating, Late, Small])
def test_what_does_not_fit_the_file_is_read_anew(misbehaving: type, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = np.array([49, 0, 7])
    monkeypatch.setattr(decord, "VideoReader", misbehaving)
    found = read(make("h264"), wanted, "decord")
    assert torch.equal(found.pixels, read(make("h264"), wanted, "pyav").pixels)
    pyav_must_not_decode(monkeypatch)
    with pytest.raises(AssertionError, match="read by PyAV"):
        read(make("h264"), wanted, "decord")


@pytest.mark.parametrize("data", [b"", b"text\n" * 99, b"ffconcat version 1.0\nfile /etc/hostname\n"])
def test_what_is_no_video_is_refused_by_both(data: bytes) -> None:
    for decoder in ("pyav", "decord"):
        with pytest.raises(UnusableSample, match="Invalid"):
            read(data, np.arange(3), decoder)


def test_unknown_decoders_are_refused(videos: Path, make_config: MakeConfig) -> None:
    with pytest.raises(UserError, match=r"data\.decoder must be pyav or decord, not opencv"):
        make_config({"v": (videos, 1.0)}, decoder="opencv")


def test_training_batches_are_the_same(videos: Path, make_config: MakeConfig) -> None:
    batches = [
        list(islice(TrainStream(make_config({"v": (videos, 1.0)}, decoder=name), seed=0, global_batch=4), 3))
        for name in ("pyav", "decord")
    ]
    for left, right in zip(*batches, strict=True):
        assert left.keys == right.keys
        assert torch.equal(left.pixels, right.pixels)


@pytest.mark.slow
def test_a_crash_in_decord_is_survived(
    videos: Path, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    crashing = encode_video(5, 32)  # clip-005, as the split holds it

    class Crashing(decord.VideoReader):
        def __init__(self, path: str, **options: object) -> None:
            if Path(path).read_bytes() == crashing:
                os.kill(os.getpid(), signal.SIGSEGV)
            super().__init__(path, **options)

    monkeypatch.setattr(decord, "VideoReader", Crashing)
    quarantine = Quarantine(tmp_path / "quarantine.jsonl")
    config = make_config({"v": (videos, 1.0)}, decoder="decord", workers=2)
    batches = list(islice(TrainStream(config, seed=0, global_batch=4, quarantine=quarantine), 10))
    assert {key for batch in batches for key in batch.keys} == {f"clip-{n:03d}" for n in range(12) if n != 5}
    assert "SIGSEGV" in (tmp_path / "quarantine.jsonl").read_text()
    assert [name.rsplit(":")[-1] for name in quarantine.names] == ["clip-005"]
