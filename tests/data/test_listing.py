"""Loose files to shards: folders of classes, CSV lists, and lists that are none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from numbered_clips import MEAN, SIDE, STD, encode_image, encode_video, read_numbers

from mmjepa.data.evaluation_set import EvaluationSet
from mmjepa.data.shards import ShardedSplit
from mmjepa.data.sources.listing import ListingConfig, write_listing
from mmjepa.errors import UserError


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for number, name in enumerate(("walk/a.b.mp4", "walk/c.mp4", "run/d.mp4")):
        path = tmp_path / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_video(number, frames=8))
    (tmp_path / "raw" / "run" / "notes.txt").write_text("not a video")
    return tmp_path / "raw"


def read(split: Path) -> list[tuple[int, dict]]:
    clips = EvaluationSet([split], frames=4, resolution=SIDE, mean=MEAN, std=STD, batch=2, workers=0)
    return [
        (read_numbers(pixels)[0][0], meta)
        for batch in clips
        for pixels, meta in zip(batch.pixels, batch.metas, strict=True)
    ]


def test_class_folders_become_a_split(raw: Path, tmp_path: Path) -> None:
    write_listing(ListingConfig(str(raw), str(tmp_path / "my-train"), samples_per_shard=2))
    found = [(number, meta["label"], meta["label_name"]) for number, meta in read(tmp_path / "my-train")]
    assert sorted(found) == [(0, 1, "walk"), (1, 1, "walk"), (2, 0, "run")]


def test_a_split_takes_its_labels_from_another(raw: Path, tmp_path: Path) -> None:
    """Folders of a test split may lack classes, or be fewer: by itself it would number them otherwise."""
    (raw / "jump").mkdir()
    (raw / "jump" / "e.mp4").write_bytes(encode_video(3, frames=8))
    write_listing(ListingConfig(str(raw), str(tmp_path / "my-train")))
    classes = tmp_path / "my-train" / "classes.txt"
    assert classes.read_text().split() == ["jump", "run", "walk"]
    shutil.rmtree(raw / "jump")
    write_listing(ListingConfig(str(raw), str(tmp_path / "my-test"), classes=str(classes)))
    labels = {meta["label_name"]: meta["label"] for _, meta in read(tmp_path / "my-test")}
    assert labels == {"run": 1, "walk": 2}
    assert (tmp_path / "my-test" / "classes.txt").read_text() == classes.read_text()
    classes.write_text("run\n")
    with pytest.raises(UserError, match=r"does not name walk, which"):
        write_listing(ListingConfig(str(raw), str(tmp_path / "other"), classes=str(classes)))
    classes.write_text("run\nwalk\nrun\n")
    with pytest.raises(UserError, match="names run twice"):
        write_listing(ListingConfig(str(raw), str(tmp_path / "other"), classes=str(classes)))


def test_hidden_files_are_passed_over_and_deeper_ones_named(
    raw: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("walk/._c.mp4", ".thumbs/x.mp4", "walk/more/deep.mp4", "top.mp4"):
        (raw / name).parent.mkdir(exist_ok=True)
        (raw / name).write_bytes(b"no video")
    write_listing(ListingConfig(str(raw), str(tmp_path / "my-train")))
    assert len(read(tmp_path / "my-train")) == 3
    (warning,) = (record.message for record in caplog.records if record.levelname == "WARNING")
    assert warning.startswith(f"2 files are not in a class folder of {raw}, e.g. ")


def test_files_that_a_csv_names_and_nobody_has(raw: Path, tmp_path: Path) -> None:
    (raw / "list.csv").write_text("path,label\nwalk/c.mp4,walk\nwalk/gone.mp4,walk\nrun/d.mp4,run\n")
    out = tmp_path / "my-train"
    with pytest.raises(UserError, match=r"1 of 3 files are missing, e.g. .*walk/gone.mp4, .*missing=skip"):
        write_listing(ListingConfig(str(raw / "list.csv"), str(out)))
    write_listing(ListingConfig(str(raw / "list.csv"), str(out), missing="skip"))
    assert sorted(number for number, _ in read(out)) == [1, 2]
    assert json.loads((out / "left-out.jsonl").read_text())["file"] == str(raw / "walk" / "gone.mp4")


def test_csv_with_several_captions_of_one_file(raw: Path, tmp_path: Path) -> None:
    rows = ["path,label,caption", "walk/c.mp4,walk,one walks", "run/d.mp4,run,", "walk/c.mp4,walk,someone is walking"]
    (raw / "list.csv").write_text("\n".join(rows))
    write_listing(ListingConfig(str(raw / "list.csv"), str(tmp_path / "my-test")))
    assert sorted((number, meta["captions"]) for number, meta in read(tmp_path / "my-test")) == [
        (1, ["one walks", "someone is walking"]),
        (2, []),
    ]


def test_splits_of_one_data_set_can_be_searched_together(raw: Path, tmp_path: Path) -> None:
    """Keys tell splits apart, and they do not depend on the order of the shards."""
    for name, seed in (("my-train", 0), ("my-test", 0), ("shuffled", 1)):
        write_listing(ListingConfig(str(raw), str(tmp_path / name), seed=seed))
    splits = {name: ShardedSplit(tmp_path / name) for name in ("my-train", "my-test", "shuffled")}
    keys = {name: [split.key(index) for index in range(3)] for name, split in splits.items()}
    assert not set(keys["my-train"]) & set(keys["my-test"])
    assert sorted(keys["my-train"]) == [f"my-train-{number:08d}" for number in range(3)]
    files = [{split.meta(i)["file"]: split.key(i)[-8:] for i in range(3)} for split in splits.values()]
    assert files[0] == files[1] == files[2] == {"d.mp4": "00000000", "a.b.mp4": "00000001", "c.mp4": "00000002"}


def test_stills_are_copied_and_not_mixed_with_videos(raw: Path, tmp_path: Path) -> None:
    (raw / "stills" / "a").mkdir(parents=True)
    (raw / "stills" / "a" / "one.png").write_bytes(encode_image(3))
    write_listing(ListingConfig(str(raw / "stills"), str(tmp_path / "stills")))
    sample = ShardedSplit(tmp_path / "stills").read(0)
    assert (sample.suffix, sample.media) == ("png", encode_image(3))
    (raw / "walk" / "one.png").write_bytes(encode_image(3))
    with pytest.raises(UserError, match="holds videos and images; make a split of each"):
        write_listing(ListingConfig(str(raw), str(tmp_path / "mixed")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "neither a folder of class folders nor a .csv"),
        ("walk/c.mp4\nrun/d.mp4", "first line must name the columns"),
        ("path,label\nwalk/z.mp4,walk", "1 of 1 files are missing, e.g. .*walk/z.mp4"),
        ("path,label\nrun/notes.txt,run", "line 2: .*notes.txt is not a video"),
        ("path,label\nwalk/c.mp4,walk\nwalk/c.mp4,run", "line 3: .*two labels"),
        ("path,label\nwalk/c.mp4", "line 2: no label"),
        ("path,label", "holds no rows"),
        ("path,label,caption\nwalk/c.mp4,walk,one walks, then runs", "line 2: more fields than columns; .*quotes"),
    ],
)
def test_a_list_that_is_none_is_refused_in_one_line(
    raw: Path, tmp_path: Path, content: str | None, message: str
) -> None:
    listed = raw / ("list.csv" if content else "list.txt")
    listed.write_text(content or "walk/c.mp4")
    with pytest.raises(UserError, match=message) as caught:
        write_listing(ListingConfig(str(listed), str(tmp_path / "out")))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "manifest.json").exists()
