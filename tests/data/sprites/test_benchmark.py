"""The benchmark on disk: the same bytes every time, complete manifests, and clips that decode to what was drawn."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmjepa.config import load_config, run_program
from mmjepa.data.decoding import decode
from mmjepa.data.manifest import Manifest
from mmjepa.data.samples import Sample
from mmjepa.data.shards import ShardedSplit
from mmjepa.data.sprites.benchmark import SpritesConfig, make_benchmark
from mmjepa.data.sprites.contact_sheet import write_contact_sheet
from mmjepa.data.sprites.draw import draw_scene
from mmjepa.data.sprites.encoding import EncodingOptions, encode_clip
from mmjepa.data.sprites.render import render_clip
from mmjepa.errors import UserError

SMALL = [
    "samples_per_shard=5",
    "sizes={appearance_train: 12, appearance_test: 0, motion_train: 7, motion_test: 0, relations_train: 0}",
    "sizes.relations_test=4",
]


def _config(out: Path, *overrides: str) -> SpritesConfig:
    return load_config("sprites_data", SpritesConfig, [f"out={out}", "processes=1", *SMALL, *overrides])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small benchmark, made in this process."""
    out = tmp_path_factory.mktemp("sprites")
    make_benchmark(_config(out))
    return out


def test_splits_are_complete_and_hold_what_the_manifest_says(made: Path) -> None:
    expected = {"appearance-train": [5, 5, 2], "motion-train": [5, 2], "relations-test": [4]}
    assert {folder.name for folder in made.iterdir()} == set(expected)
    for name, counts in expected.items():
        manifest = Manifest.read(made / name)
        assert [shard.samples for shard in manifest.shards] == counts
        assert manifest.kind == ("image" if name.startswith("appearance") else "video")
        split = ShardedSplit(made / name)
        assert (len(split), split.damage) == (sum(counts), [])
        keys = set()
        for index in range(len(split)):
            sample = split.read(index)
            assert sample.meta["split"] == manifest.split == name
            assert {"label", "label_name", "captions", "hard_negatives", "source", "background"} <= set(sample.meta)
            keys.add(sample.key)
        assert len(keys) == sum(counts)


def test_the_same_settings_give_the_same_bytes(made: Path, tmp_path: Path) -> None:
    make_benchmark(_config(tmp_path))
    for name in ("appearance-train", "motion-train", "relations-test"):
        assert Manifest.read(tmp_path / name).fingerprint == Manifest.read(made / name).fingerprint
    make_benchmark(_config(tmp_path / "other", "seed=1"))
    assert (
        Manifest.read(tmp_path / "other/motion-train").fingerprint != Manifest.read(made / "motion-train").fingerprint
    )


@pytest.mark.slow
def test_the_number_of_processes_does_not_matter(made: Path, tmp_path: Path) -> None:
    make_benchmark(_config(tmp_path, "processes=2"))
    for name in ("appearance-train", "motion-train", "relations-test"):
        ours, theirs = Manifest.read(tmp_path / name), Manifest.read(made / name)
        assert (ours.shards, ours.fingerprint) == (theirs.shards, theirs.fingerprint)


def test_shards_and_json_carry_no_times_and_no_user(made: Path) -> None:
    with tarfile.open(made / "motion-train/shard-000000.tar") as shard:
        members = shard.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}


@pytest.mark.parametrize("kind", ["motion", "relations"])
def test_clips_decode_to_the_frames_that_were_drawn(made: Path, kind: str) -> None:
    split = ShardedSplit(made / {"motion": "motion-train", "relations": "relations-test"}[kind])
    for index in range(4):
        sample = split.read(index)
        drawn = render_clip(draw_scene(kind, index, sample.meta["split"].split("-")[1]))
        frames = decode(sample, np.arange)
        assert frames.pixels.shape == drawn.shape == (32, 64, 64, 3)
        assert np.allclose(frames.timestamps, np.arange(32) / 16, atol=1e-3)
        # Brightness only: the codec stores colour at half resolution.
        error = (frames.pixels.numpy().astype(float) - drawn) @ [0.299, 0.587, 0.114]
        assert np.abs(error).mean() < 4
        frame_to_frame = np.abs(np.diff(drawn.astype(float) @ [0.299, 0.587, 0.114], axis=0)).mean(axis=(1, 2))
        assert (np.abs(error).mean(axis=(1, 2))[1:] < 3 + frame_to_frame).all()


def test_random_access_gives_the_frame_asked_for() -> None:
    """A clip whose frame number is its brightness: wrong groups of pictures would show as wrong numbers."""
    clip = np.repeat(np.arange(10, 250, 7, dtype=np.uint8), 64 * 64 * 3).reshape(-1, 64, 64, 3)
    sample = Sample("numbered", encode_clip(clip, 16, EncodingOptions()), "mp4", {})
    wanted = np.array([30, 2, 13, 11, 12, 24])
    seen = decode(sample, lambda count: wanted).pixels.numpy().mean(axis=(1, 2, 3))
    assert np.abs(seen - (10 + 7 * wanted)).max() < 3


def test_finished_splits_are_left_alone_unless_the_settings_differ(made: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()}
    make_benchmark(_config(made, "processes=3"))
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()} == before
    with pytest.raises(UserError, match="other settings"):
        make_benchmark(_config(made, "encoding.crf=30"))


def test_an_interrupted_split_is_made_anew(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "motion-train"
    folder.mkdir()
    (folder / "shard-000007.tar").write_bytes(b"left over")
    (folder / ".shard-000001.tar.tmp").write_bytes(b"half written")
    make_benchmark(_config(tmp_path))
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "shard-000000.tar", "shard-000001.tar"]
    assert Manifest.read(folder).fingerprint == Manifest.read(made / "motion-train").fingerprint


def test_a_shard_that_went_missing_is_reported(tmp_path: Path) -> None:
    make_benchmark(_config(tmp_path))
    (tmp_path / "motion-train/shard-000001.tar").unlink()
    with pytest.raises(UserError, match=r"shard-000001\.tar: missing"):
        make_benchmark(_config(tmp_path))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("scene.frames=3", "at least 12"),
        ("sizes.motion_train=-1", "must not be negative"),
        ("processes=0", "at least 1"),
        ("encoding.crf=99", "0..51"),
        ("scene.colour=3", "colour"),
    ],
)
def test_wrong_settings_end_in_one_line(
    override: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run_program("sprites_data", SpritesConfig, make_benchmark, [f"out={tmp_path}", override])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_contact_sheets_show_one_strip_per_class(made: Path, tmp_path: Path) -> None:
    write_contact_sheet(made / "relations-test", tmp_path / "sheets/relations.png", rows=3)
    with Image.open(tmp_path / "sheets/relations.png") as sheet:
        assert sheet.width > 8 * 128
        assert 3 * 128 <= sheet.height < 4 * 128


def test_provenance_says_how_to_make_the_data_again(made: Path) -> None:
    provenance = json.loads((made / "motion-train/manifest.json").read_text())["provenance"]
    assert provenance["seed"] == 0
    assert provenance["arguments"]["scene"]["background_levels"] == [0.0, 0.25, 0.5]
    assert {"av", "numpy", "webdataset"} <= set(provenance["versions"])
