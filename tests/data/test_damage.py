"""Damaged media and shards are skipped, counted, named and replaced, and never end a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from numbered_clips import MEAN, STD, image_sample, read_numbers, write_split

from mmjepa.data.config import DataConfig
from mmjepa.data.evaluation_set import EvaluationSet
from mmjepa.data.quarantine import Quarantine
from mmjepa.data.samples import Failure, Sample
from mmjepa.data.shards import ShardedSplit
from mmjepa.data.stream import TrainStream
from mmjepa.errors import UserError

MakeConfig = Callable[..., DataConfig]
BLOCK = 512


def flip_bytes(data: bytes) -> bytes:
    """Overwrite the middle half with a constant."""
    quarter = len(data) // 4
    return data[:quarter] + b"\x55" * (2 * quarter) + data[3 * quarter :]


DAMAGED_MEDIA = {
    "text": b"these are not the bytes of a video\n" * 40,
    "empty": b"",
    "half": None,
    "zeros": bytes(5000),
    "overwritten": None,
    "picture": image_sample(1).media[:200],
}


def damaged(kind: str, sample: Sample) -> Sample:
    made = {"half": sample.media[: len(sample.media) // 2], "overwritten": flip_bytes(sample.media)}
    return replace(sample, media=DAMAGED_MEDIA[kind] or made.get(kind, b""))


def read_all(path: Path, quarantine: Quarantine, **changes: object) -> dict[str, int]:
    """key -> number drawn in the first frame, of every clip of an evaluation set."""
    options = {"frames": 4, "resolution": 64, "mean": MEAN, "std": STD, "batch": 3, "workers": 0}
    batches = EvaluationSet([path], **(options | changes), quarantine=quarantine)  # type: ignore[arg-type]
    return {
        key: read_numbers(clip)[0][0] for batch in batches for key, clip in zip(batch.keys, batch.pixels, strict=True)
    }


@pytest.mark.parametrize("kind", DAMAGED_MEDIA)
def test_damaged_videos_are_skipped_and_named(tmp_path: Path, twelve_videos: list[Sample], kind: str) -> None:
    samples = [damaged(kind, s) if number in (1, 4) else s for number, s in enumerate(twelve_videos[:6])]
    quarantine = Quarantine(tmp_path / "quarantine.jsonl")
    found = read_all(write_split(tmp_path / "split", samples), quarantine)
    assert found == {f"clip-{n:03d}": n for n in (0, 2, 3, 5)}
    rows = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert [(Path(row["shard"]).name, row["key"]) for row in rows] == [
        ("shard-000000.tar", "clip-001"),
        ("shard-000001.tar", "clip-004"),
    ]
    assert all(row["reason"] and "\n" not in row["reason"] for row in rows)
    assert quarantine.count == 2


@pytest.mark.parametrize("data", [b"", b"no picture", image_sample(0).media[:60], bytes(300)])
def test_damaged_stills_are_skipped(tmp_path: Path, data: bytes) -> None:
    samples = [image_sample(0), replace(image_sample(1), media=data), image_sample(2)]
    quarantine = Quarantine()
    assert read_all(write_split(tmp_path / "s", samples, kind="image"), quarantine) == {"still-000": 0, "still-002": 2}
    assert quarantine.count == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_training_replaces_damaged_samples_deterministically(
    tmp_path: Path, twelve_videos: list[Sample], make_config: MakeConfig, workers: int
) -> None:
    samples = [damaged("text", s) if number % 3 == 0 else s for number, s in enumerate(twelve_videos)]
    split = write_split(tmp_path / "split", samples)

    def run(workers: int) -> tuple[list[str], TrainStream]:
        config = make_config({"v": (split, 1.0)}, workers=workers)
        stream = TrainStream(config, seed=0, global_batch=4, quarantine=Quarantine(tmp_path / f"q{workers}.jsonl"))
        return [key for batch in islice(stream, 9) for key in batch.keys], stream

    keys, stream = run(workers)
    assert keys == run(0)[0]
    assert len(keys) == 36
    bad = {f"clip-{number:03d}" for number in (0, 3, 6, 9)}
    assert set(keys) == {s.key for s in samples} - bad
    listed = [json.loads(line)["key"] for line in (tmp_path / f"q{workers}.jsonl").read_text().splitlines()]
    assert sorted(listed) == sorted(bad)
    # Three passes meet each of the four bad samples thrice, and replacements may be bad too.
    assert stream.failures >= 12


def test_a_source_without_usable_samples_ends_in_one_clear_line(
    tmp_path: Path, twelve_videos: list[Sample], make_config: MakeConfig
) -> None:
    split = write_split(tmp_path / "bad", [damaged("text", sample) for sample in twelve_videos])
    config = make_config({"broken": (split, 1.0)}, workers=1, max_failures_in_row=7)
    quarantine = Quarantine()
    with pytest.raises(UserError, match="data source broken: 7 unusable samples in a row") as caught:
        next(iter(TrainStream(config, seed=0, global_batch=4, quarantine=quarantine)))
    assert "\n" not in str(caught.value)
    assert quarantine.count == 7
    with pytest.raises(UserError, match="none of the 12 samples"):
        read_all(split, Quarantine())


def first_shard(split: Path) -> Path:
    return split / "shard-000000.tar"


def header_offset(shard: Path, name: str) -> int:
    """Where the header of a member begins."""
    data = shard.read_bytes()
    found = [at for at in range(0, len(data), BLOCK) if data[at : at + len(name) + 1] == name.encode() + b"\0"]
    assert len(found) == 1
    return found[0]


def overwrite(shard: Path, offset: int, data: bytes) -> None:
    with shard.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def cut_short(split: Path) -> set[int]:
    """Cut within the video of sample 2: 2 and 3 are lost."""
    shard = first_shard(split)
    shard.write_bytes(shard.read_bytes()[: header_offset(shard, "clip-002.mp4") + 2 * BLOCK + 100])
    return {2, 3}


def cut_in_header(split: Path) -> set[int]:
    shard = first_shard(split)
    shard.write_bytes(shard.read_bytes()[: header_offset(shard, "clip-001.mp4") + 100])
    return {1, 2, 3}


def damage_header(split: Path) -> set[int]:
    """One header in the middle: only its own sample is lost, although tar readers stop there."""
    overwrite(first_shard(split), header_offset(first_shard(split), "clip-001.mp4"), b"\xff" * BLOCK)
    return {1}


def damage_first_header(split: Path) -> set[int]:
    overwrite(first_shard(split), 0, bytes(BLOCK))
    return {0}


def negative_size(split: Path) -> set[int]:
    """A well-formed header that sends the reader back to where it came from."""
    shard = first_shard(split)
    offset = header_offset(shard, "clip-001.mp4")
    header = bytearray(shard.read_bytes()[offset : offset + BLOCK])
    header[124:136] = (-1024).to_bytes(12, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    overwrite(shard, offset, bytes(header))
    return {1, 2, 3}


def make_text(split: Path) -> set[int]:
    first_shard(split).write_text("not a tar\n" * 300)
    return {0, 1, 2, 3}


def make_empty(split: Path) -> set[int]:
    first_shard(split).write_bytes(b"")
    return {0, 1, 2, 3}


def remove(split: Path) -> set[int]:
    first_shard(split).unlink()
    return {0, 1, 2, 3}


@pytest.mark.parametrize(
    "break_shard",
    [cut_short, cut_in_header, damage_header, damage_first_header, negative_size, make_text, make_empty, remove],
)
def test_what_a_damaged_shard_still_holds_is_used(
    tmp_path: Path, twelve_videos: list[Sample], break_shard: Callable[[Path], set[int]]
) -> None:
    split = write_split(tmp_path / "split", twelve_videos[:8])
    lost = break_shard(split)
    quarantine = Quarantine()
    assert read_all(split, quarantine) == {f"clip-{n:03d}": n for n in range(8) if n not in lost}
    shard = str(first_shard(split))
    assert shard in quarantine.names
    assert all(name.startswith(shard) for name in quarantine.names)
    (reason,) = (failure.reason for failure in ShardedSplit(split).damage if failure.key is None)
    assert reason.startswith(f"{4 - len(lost)} usable samples where the manifest says 4")


@pytest.mark.parametrize("break_shard", [cut_short, damage_header, make_text, remove])
def test_damage_on_one_machine_does_not_change_the_order_of_training(
    tmp_path: Path, twelve_videos: list[Sample], make_config: MakeConfig, break_shard: Callable[[Path], set[int]]
) -> None:
    """Only the rows of samples that are lost hold something else: ranks and restarts agree on all the others."""

    def order(split: Path) -> list[str]:
        stream = TrainStream(make_config({"v": (split, 1.0)}), seed=0, global_batch=4, quarantine=Quarantine())
        return [key for batch in islice(stream, 9) for key in batch.keys]

    whole = order(write_split(tmp_path / "whole", twelve_videos))
    split = write_split(tmp_path / "damaged", twelve_videos)
    lost = {f"clip-{number:03d}" for number in break_shard(split)}
    damaged = order(split)
    assert len(ShardedSplit(split)) == 12
    assert not lost & set(damaged)
    assert [new for old, new in zip(whole, damaged, strict=True) if old not in lost] == [
        old for old in whole if old not in lost
    ]


def test_a_split_without_any_usable_shard_is_a_user_error(tmp_path: Path, twelve_videos: list[Sample]) -> None:
    split = write_split(tmp_path / "split", twelve_videos[:4])
    make_text(split)
    with pytest.raises(UserError, match="no usable samples"):
        ShardedSplit(split)


def test_a_shard_that_shrinks_while_it_is_read(tmp_path: Path, twelve_videos: list[Sample]) -> None:
    split = write_split(tmp_path / "split", twelve_videos[:4])
    opened = EvaluationSet([split], frames=4, resolution=64, mean=MEAN, std=STD, batch=4, workers=0)
    cut_short(split)
    assert [key for batch in opened for key in batch.keys] == ["clip-000", "clip-001"]
    assert opened.quarantine.count == 2


@pytest.mark.parametrize("text", [b"{", b"[1, 2]", b"\xff\xfe"])
def test_bad_json_is_a_failure_of_the_sample(tmp_path: Path, twelve_videos: list[Sample], text: bytes) -> None:
    split = write_split(tmp_path / "split", twelve_videos[:4])
    shard = first_shard(split)
    overwrite(shard, header_offset(shard, "clip-001.json") + BLOCK, text.ljust(len('{"label": 1}')))
    quarantine = Quarantine()
    assert set(read_all(split, quarantine)) == {"clip-000", "clip-002", "clip-003"}
    assert quarantine.names == [f"{shard}:clip-001"]


def test_quarantine_survives_a_restart(tmp_path: Path) -> None:
    """A resumed run lists nothing twice, even if the process died in the middle of a line."""
    path = tmp_path / "run" / "quarantine.jsonl"
    first, second = Failure("a.tar", "k", "torn"), Failure("b.tar", None, "gone")
    quarantine = Quarantine(path)
    quarantine.record([first, first])
    assert quarantine.count == 2
    with path.open("a") as file:
        file.write('{"shard": "b.ta')
    again = Quarantine(path)
    again.record([first, second])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == [
        {"shard": "a.tar", "key": "k", "reason": "torn"},
        {"shard": "b.tar", "key": None, "reason": "gone"},
    ]
