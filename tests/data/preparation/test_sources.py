"""Every published layout, in miniature: what ends up in the shards, and what is said of wrong or missing files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import layouts
import pytest

from mmjepa.config import load_config, run_program
from mmjepa.data.manifest import Manifest
from mmjepa.data.preparation.options import VideoPreparationConfig
from mmjepa.data.shards import ShardedSplit
from mmjepa.data.sources.didemo import DidemoConfig, write_didemo
from mmjepa.data.sources.diving48 import write_diving48
from mmjepa.data.sources.imagenet100 import Imagenet100Config, write_imagenet100
from mmjepa.data.sources.msrvtt import MsrvttConfig, write_msrvtt
from mmjepa.data.sources.msvd import write_msvd
from mmjepa.data.sources.ssv2 import Ssv2Config, write_ssv2
from mmjepa.data.sources.ucf101 import Ucf101Config, write_ucf101
from mmjepa.data.sources.vatex import VatexConfig, write_vatex
from mmjepa.errors import UserError

Metas = dict[str, dict[str, Any]]
Write = Callable[..., dict[str, Metas]]

PROGRAMS: dict[str, tuple[Any, Any]] = {
    "ucf101": (Ucf101Config, write_ucf101),
    "ssv2": (Ssv2Config, write_ssv2),
    "imagenet100": (Imagenet100Config, write_imagenet100),
    "diving48": (VideoPreparationConfig, write_diving48),
    "msrvtt": (MsrvttConfig, write_msrvtt),
    "msvd": (VideoPreparationConfig, write_msvd),
    "didemo": (DidemoConfig, write_didemo),
    "vatex": (VatexConfig, write_vatex),
}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Make the miniature of a layout, run its program on it and return {split: {id: JSON}}."""

    def run(layout: str, *overrides: str) -> dict[str, Metas]:
        raw, name = tmp_path / "raw", layout.partition("_")[0]
        asked = getattr(layouts, layout)(raw) if not raw.exists() else []
        schema, program = PROGRAMS[name]
        settings = [f"raw={raw}", f"out={tmp_path / 'data'}", "counts=any", "samples_per_shard=4", *asked, *overrides]
        program(load_config(f"{name}_data", schema, settings))
        return read(tmp_path / "data")

    return run


def read(data: Path) -> dict[str, Metas]:
    """{split: {id: JSON}} of all finished splits, in the order of the shards."""
    found = {}
    for folder in sorted(path.parent for path in data.glob("*/manifest.json")):
        split = ShardedSplit(folder)
        assert not split.damage
        samples = [split.read(index) for index in range(len(split))]
        assert all(sample.key == f"{folder.name}-{sample.meta['id'].replace('.', '_')}" for sample in samples)
        assert {sample.suffix for sample in samples} <= {"mp4", "jpg"}
        assert all(Manifest.read(folder).split == folder.name for _ in samples)
        found[folder.name] = {sample.meta["id"]: sample.meta for sample in samples}
    return found


def sizes(splits: dict[str, Metas]) -> dict[str, int]:
    return {name: len(metas) for name, metas in splits.items()}


def test_ucf101(write: Write, tmp_path: Path) -> None:
    splits = write("ucf101")
    assert sizes(splits) == {"ucf101-train": 18, "ucf101-test": 6}
    assert {id.split("_g")[1][:2] for id in splits["ucf101-test"]} == {"01"}
    sample = splits["ucf101-train"]["v_HandstandPushups_g08_c02"]
    assert (sample["label"], sample["label_name"], sample["captions"]) == (1, "HandstandPushups", [])
    assert (sample["source"], sample["split"]) == ("ucf101", "train")
    labels = [meta["label"] for meta in splits["ucf101-train"].values()]
    assert labels != sorted(labels)
    splits = write("ucf101", "fold=3")
    assert {id.split("_g")[1][:2] for id in splits["ucf101-fold3-test"]} == {"03"}
    arguments = Manifest.read(tmp_path / "data" / "ucf101-fold3-test").provenance.arguments
    assert arguments["fold"] == 3
    assert set(arguments["annotations"]) == {"classInd.txt", "testlist03.txt"}
    assert len(arguments["annotations"]["testlist03.txt"]) == 64


def test_ssv2(write: Write) -> None:
    splits = write("ssv2", "splits=[train,validation,test]")
    assert sizes(splits) == {"ssv2-train": 6, "ssv2-validation": 3, "ssv2-test": 2}
    sample = splits["ssv2-train"]["78687"]
    assert sample["captions"] == ["holding potato next to vicks vaporub bottle"]
    assert (sample["label"], sample["label_name"]) == (1, "Holding something next to something")
    assert sample["placeholders"] == ["potato", "vicks vaporub bottle"]
    assert splits["ssv2-train"]["78697"]["label"] == 0
    assert all(meta["label"] is None for meta in splits["ssv2-test"].values())


def test_imagenet100_of_a_tree(write: Write) -> None:
    splits = write("imagenet100")
    assert sizes(splits) == {"imagenet100-train": 10, "imagenet100-validation": 4}
    first, second = layouts.WNIDS[:2]
    sample = splits["imagenet100-train"][f"{first}_3"]
    assert (sample["label"], sample["label_name"], sample["wnid"]) == (0, "bonnet, poke bonnet", first)
    assert splits["imagenet100-validation"]["ILSVRC2012_val_00000003"]["wnid"] == second


def test_imagenet100_of_parquet_files(write: Write, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="an optional extra")
    splits = write("imagenet100_parquet")
    assert sizes(splits) == {"imagenet100-train": 10, "imagenet100-validation": 4}
    sample = splits["imagenet100-train"]["0000007"]  # the second row of the second file
    assert (sample["label"], sample["label_name"]) == (1, "robin")
    split = ShardedSplit(tmp_path / "data" / "imagenet100-train")
    images = {split.meta(index)["id"]: split.read(index).media for index in range(len(split))}
    assert images == {f"{number:07d}": layouts.tiny_image(number) for number in range(10)}


def test_diving48(write: Write) -> None:
    splits = write("diving48")
    assert sizes(splits) == {"diving48-train": 6, "diving48-test": 3}
    sample = splits["diving48-train"]["4RTPdgoLHJU_00001"]
    assert (sample["label"], sample["label_name"], sample["end_frame"]) == (24, "Back-15som-24Twis-FREE", 20)


def test_msrvtt_1k_a(write: Write) -> None:
    splits = write("msrvtt")
    assert sizes(splits) == {"msrvtt-train": 6, "msrvtt-test": 2}
    assert len(splits["msrvtt-train"]["video3"]["captions"]) == 20
    assert splits["msrvtt-test"]["video7"]["captions"] == ["a bar, the one of brightness 7"]
    assert splits["msrvtt-test"]["video7"]["category"] == 7
    assert splits["msrvtt-test"]["video7"]["label"] is None


@pytest.mark.parametrize("original", [False, True])
def test_msrvtt_full(write: Write, tmp_path: Path, original: bool) -> None:
    raw = tmp_path / "raw"
    layouts.msrvtt(raw)
    if original:  # the challenge's own two files
        content = json.loads((raw / "MSRVTT_data.json").read_text())
        (raw / "MSRVTT_data.json").unlink()
        for name, test in (("train_val_videodatainfo.json", False), ("test_videodatainfo.json", True)):
            videos = [video for video in content["videos"] if (video["split"] == "test") == test]
            ids = {video["video_id"] for video in videos}
            sentences = [sentence for sentence in content["sentences"] if sentence["video_id"] in ids]
            layouts.put(raw / name, {"videos": videos, "sentences": sentences})
    splits = write("msrvtt", "protocol=full")
    assert sizes(splits) == {"msrvtt-full-train": 5, "msrvtt-full-validation": 1, "msrvtt-full-test": 2}
    assert len(splits["msrvtt-full-test"]["video7"]["captions"]) == 20


def test_msvd(write: Write) -> None:
    splits = write("msvd")
    assert sizes(splits) == {"msvd-train": 5, "msvd-validation": 1, "msvd-test": 2}
    assert splits["msvd-train"]["mv89psg6zh0_33_46"]["captions"] == [
        "a bar of brightness 0 is moving on.",
        "a bar of brightness 0 is moving away.",
    ]


def test_didemo(write: Write) -> None:
    splits = write("didemo", "first_seconds=1")
    assert sizes(splits) == {"didemo-train": 5, "didemo-validation": 1, "didemo-test": 2}
    sample = splits["didemo-train"]["10015569@N08_3655084291_d8b58466fa.avi"]
    assert sample["captions"] == ["bar 2 is at place 0. bar 2 is at place 1. bar 2 is at place 2."]
    assert [moment["times"][0] for moment in sample["moments"]] == [[0, 0], [1, 1], [2, 2]]


def test_vatex_with_a_dead_link_and_a_whole_video(write: Write, tmp_path: Path) -> None:
    splits = write("vatex")
    assert sizes(splits) == {"vatex-train": 5, "vatex-validation": 2, "vatex-test": 2}
    assert len(splits["vatex-train"]["Ptf_2VRj-V8_000000_000001"]["captions"]) == 10
    left_out = [json.loads(line) for line in (tmp_path / "data/vatex-test/left-out.jsonl").read_text().splitlines()]
    assert [one["id"] for one in left_out] == ["Ptf_2VRj-V9_000000_000001"]
    arguments = Manifest.read(tmp_path / "data" / "vatex-test").provenance.arguments
    assert arguments["left_out"] == {"missing": 1, "unreadable": 0}


def test_vatex_with_its_test_set_cut_from_validation(write: Write, tmp_path: Path) -> None:
    chosen = layouts.put(tmp_path / "test.txt", "Ptf_2VRj-V5_000000_000001\n")
    splits = write("vatex", f"test_list={chosen}")
    assert list(splits["vatex-test"]) == ["Ptf_2VRj-V5_000000_000001"]
    assert list(splits["vatex-validation"]) == ["Ptf_2VRj-V4_000000_000001"]


@pytest.mark.parametrize("layout", PROGRAMS)
def test_other_counts_than_published_are_refused_in_words(write: Write, layout: str) -> None:
    with pytest.raises(UserError, match=r"published.*counts=any|not 100; counts=any") as caught:
        write(layout, "counts=published")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("layout", "broken", "content", "message"),
    [
        ("ucf101", "ucfTrainTestlist/classInd.txt", None, "no file with the name classInd.txt"),
        ("ucf101", "ucfTrainTestlist/classInd.txt", "ApplyEyeMakeup\n", "lines must be <number> <class>"),
        (
            "ucf101",
            "ucfTrainTestlist/trainlist01.txt",
            "Surfing/v_Surfing_g01_c01.avi 4",
            "not <class of classInd.txt>",
        ),
        ("ucf101", "copy/testlist01.txt", "", "2 files, e.g."),
        ("ucf101", "copy/v_YoYo_g01_c01.mp4", "", "two files for the video v_YoYo_g01_c01"),
        ("ucf101", "UCF-101/YoYo/v_YoYo_g01_c02.avi", None, "1 of 6 files are missing, e.g. v_YoYo_g01_c02"),
        ("ssv2", "labels/something-something-v2-train.json", "[{", "is not JSON"),
        ("ssv2", "labels/something-something-v2-train.json", [{"id": "1"}], "entry 0 has no label, template"),
        ("ssv2", "labels/something-something-v2-labels.json", {"Doing something": "0"}, "its template is no class"),
        ("ssv2", "labels/something-something-v2-labels.json", ["a"], "must map each template"),
        ("imagenet100", "imagenet100.txt", "n00000001\n", "no train images of 1 of 1 classes, e.g. n00000001"),
        ("imagenet100", "LOC_val_solution.csv", None, "is not sorted into classes"),
        ("diving48", "Diving48_V2_test.json", {}, "does not hold a list"),
        ("diving48", "Diving48_vocab.json", [["Back"]], "must list 48 dives"),
        ("msrvtt", "MSRVTT_JSFUSION_test.csv", "key,video_id\nret0,video7\n", "no sentence"),
        ("msrvtt", "MSRVTT_train.9k.csv", "video_id\nvideo7\n", "1 videos are in MSRVTT_train.9k.csv and"),
        ("msrvtt", "MSRVTT_train.9k.csv", "video_id\nvideo99\n", "video99 has no sentence"),
        ("msvd", "val_list.txt", "mv89psg6zh9_1_2\n", "has no description"),
        ("msvd", "AllVideoDescriptions.txt", b"\xff\xfe\x00", "not a text file in UTF-8"),
        ("didemo", "test_data.json", [{"video": "a.mov", "times": []}], "entry 0 has no description"),
        ("vatex", "vatex_training_v1.0.json", [{"videoID": "abc", "enCap": ["a"]}], "abc: not <YouTube id>"),
    ],
)
def test_wrong_downloads_are_refused_in_one_line(
    write: Write, tmp_path: Path, layout: str, broken: str, content: Any, message: str
) -> None:
    asked = getattr(layouts, layout)(tmp_path / "raw")
    if content is None:
        (tmp_path / "raw" / broken).unlink()
    else:
        layouts.put(tmp_path / "raw" / broken, content)
    with pytest.raises(UserError, match=message) as caught:
        write(layout, *asked)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("data/*/manifest.json"))


def test_a_dead_link_is_refused_where_it_is_asked_for(write: Write) -> None:
    with pytest.raises(UserError, match=r"vatex-test: 1 of 3 files are missing.*missing=skip leaves them out"):
        write("vatex", "missing=refuse")


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_end_with_one_line_and_exit_code_2(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schema, program = PROGRAMS[name]
    with pytest.raises(SystemExit) as stopped:
        run_program(f"{name}_data", schema, program, [f"raw={tmp_path / 'absent'}", f"out={tmp_path / 'data'}"])
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line] == [f"error: raw={tmp_path / 'absent'}: there is no such folder"]
