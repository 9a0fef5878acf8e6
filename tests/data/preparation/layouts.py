"""Miniature copies of the published data sets: annotation files as published but for their length, tiny real videos.

Every builder makes the download in a folder and returns what the program must be asked for besides raw and out.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

CODECS = {"avi": ("avi", "mpeg4"), "mp4": ("mp4", "libx264"), "webm": ("webm", "libvpx"), "mov": ("mov", "libx264")}


@cache
def tiny_video(number: int, suffix: str = "mp4", frames: int = 20, size: tuple[int, int] = (64, 48)) -> bytes:
    """A bar that wanders, 10 frames a second; ``number`` says how bright it is. ``size`` is (width, height)."""
    container, codec = CODECS[suffix]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=10)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for frame in range(frames):
            pixels = np.full((size[1], size[0], 3), 40, np.uint8)
            pixels[:, 2 * frame : 2 * frame + 8] = 100 + 5 * (number % 30)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return buffer.getvalue()


@cache
def tiny_image(number: int, format: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((40, 56, 3), (9 * number) % 256, np.uint8)).save(buffer, format=format)
    return buffer.getvalue()


def put(path: Path, content: bytes | str | Any) -> Path:
    """Write a file: bytes and text as they are, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def videos(folder: Path, names: Sequence[str], suffix: str) -> None:
    for number, name in enumerate(names):
        put(folder / f"{name}.{suffix}", tiny_video(number, suffix))


def ucf101(raw: Path) -> list[str]:
    """Three classes, four groups of two clips; the folds take other groups for the test."""
    classes = ["ApplyEyeMakeup", "HandstandPushups", "YoYo"]
    names = [f"{c}/v_{c}_g{group:02d}_c{clip:02d}" for c in classes for group in (1, 2, 3, 8) for clip in (1, 2)]
    videos(raw / "UCF-101", names, "avi")
    lists = raw / "ucfTrainTestlist"
    numbers = {name: number for number, name in enumerate(classes, start=1)}
    put(lists / "classInd.txt", "".join(f"{number} {name}\r\n" for name, number in numbers.items()))
    for fold in (1, 2, 3):
        test = [name for name in names if f"_g{fold:02d}_" in name]
        train = [f"{name}.avi {numbers[name.partition('/')[0]]}" for name in names if name not in test]
        put(lists / f"trainlist{fold:02d}.txt", "\r\n".join(train) + "\r\n")
        put(lists / f"testlist{fold:02d}.txt", "".join(f"{name}.avi\n" for name in test))
    return []


def ssv2(raw: Path) -> list[str]:
    templates = {"Holding [something] next to [something]": "1", "Turning [something] upside down": "0"}
    labels = {name.replace("[", "").replace("]", ""): number for name, number in templates.items()}
    put(raw / "labels" / "something-something-v2-labels.json", labels)
    ids = [str(78687 + 10 * number) for number in range(11)]
    videos(raw / "20bn-something-something-v2", ids, "webm")

    def entry(number: int) -> dict[str, Any]:
        template = list(templates)[number % 2]
        things = ["potato", "vicks vaporub bottle"][: template.count("[something]")]
        label = template.lower()
        for thing in things:
            label = label.replace("[something]", thing, 1)
        return {"id": ids[number], "label": label, "template": template, "placeholders": things}

    put(raw / "labels" / "something-something-v2-train.json", [entry(number) for number in range(6)])
    put(raw / "labels" / "something-something-v2-validation.json", [entry(number) for number in range(6, 9)])
    put(raw / "labels" / "something-something-v2-test.json", [{"id": id} for id in ids[9:]])
    return []


WNIDS = ("n02869837", "n01558993", "n04099969")


def imagenet100(raw: Path) -> list[str]:
    """Two listed classes and one that is not; the validation images lie flat, as in the archive."""
    root = raw / "ILSVRC" / "Data" / "CLS-LOC"
    solution = ["ImageId,PredictionString"]
    for number, wnid in enumerate(WNIDS):
        for image in range(5):
            put(root / "train" / wnid / f"{wnid}_{image}.JPEG", tiny_image(5 * number + image))
        for image in range(2):
            name = f"ILSVRC2012_val_{2 * number + image + 1:08d}"
            put(root / "val" / f"{name}.JPEG", tiny_image(100 + 2 * number + image))
            solution.append(f"{name},{wnid} 12 30 200 300 {wnid} 1 2 3 4")
    put(raw / "LOC_val_solution.csv", "\n".join(solution))
    classes = put(raw / "imagenet100.txt", f"{WNIDS[0]} bonnet, poke bonnet\n{WNIDS[1]} robin\n")
    return [f"classes={classes}"]


def imagenet100_parquet(raw: Path) -> list[str]:
    """Two files of a train split and one of validation, with the hub's description of the columns."""
    import pyarrow as pa
    from pyarrow import parquet

    features = {
        "image": {"_type": "Image"},
        "label": {"names": ["bonnet, poke bonnet", "robin"], "_type": "ClassLabel"},
    }
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("label", pa.int64())])
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    for name, first, rows in (
        ("train-00000-of-00002", 0, 6),
        ("train-00001-of-00002", 6, 4),
        ("validation-00000-of-00001", 10, 4),
    ):
        table = {
            "image": [{"bytes": tiny_image(first + row), "path": None} for row in range(rows)],
            "label": [row % 2 for row in range(rows)],
        }
        (raw / "data").mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.table(table, schema=schema), raw / "data" / f"{name}.parquet", row_group_size=3)
    return []


def diving48(raw: Path) -> list[str]:
    dives = [["Back", "15som", f"{number:02d}Twis", "FREE"] for number in range(48)]
    put(raw / "Diving48_vocab.json", dives)
    names = [f"4RTPdgoLHJU_{number:05d}" for number in range(9)]
    videos(raw / "rgb", names, "mp4")
    entries = [
        {"vid_name": name, "label": 24 * (number % 2), "start_frame": 0, "end_frame": 20}
        for number, name in enumerate(names)
    ]
    put(raw / "Diving48_V2_train.json", entries[:6])
    put(raw / "Diving48_V2_test.json", entries[6:])
    return []


def msrvtt(raw: Path) -> list[str]:
    """Eight videos: 5 train, 1 validate, 2 test in the original split; 1k-A takes the last two for its test as well."""
    ids = [f"video{number}" for number in range(8)]
    videos(raw / "videos" / "all", ids, "mp4")
    split = ["train"] * 5 + ["validate"] + ["test"] * 2
    entries = [
        {"category": number, "url": f"https://example.org/{number}", "video_id": id, "split": split[number]}
        | {"start time": 1.0, "end time": 3.0, "id": number}
        for number, id in enumerate(ids)
    ]
    sentences = [
        {
            "caption": f"a bar of brightness {number} in wording {wording}",
            "video_id": id,
            "sen_id": 20 * number + wording,
        }
        for number, id in enumerate(ids)
        for wording in range(20)
    ]
    put(raw / "MSRVTT_data.json", {"info": {}, "videos": entries, "sentences": sentences})
    put(raw / "MSRVTT_train.9k.csv", "video_id\n" + "\n".join(ids[:6]) + "\n")
    rows = [f'ret{number},msr{number},video{number},"a bar, the one of brightness {number}"' for number in (6, 7)]
    put(raw / "MSRVTT_JSFUSION_test.csv", "key,vid_key,video_id,sentence\n" + "\n".join(rows) + "\n")
    return []


def msvd(raw: Path) -> list[str]:
    names = [f"mv89psg6zh{number}_33_46" for number in range(8)]
    videos(raw / "YouTubeClips", names, "avi")
    head = "# Microsoft Research Video Description Corpus\n\n"
    lines = [
        f"{name} a bar of brightness {n} is moving {way}." for n, name in enumerate(names) for way in ("on", "away")
    ]
    put(raw / "AllVideoDescriptions.txt", head + "\n".join(lines) + "\n")
    for split, part in (("train", names[:5]), ("val", names[5:6]), ("test", names[6:])):
        put(raw / f"{split}_list.txt", "\n".join(part) + "\n")
    return []


def didemo(raw: Path) -> list[str]:
    """Videos are named with the suffix of the upload; one copy on disk has another, and one has both."""
    names = [f"{10015567 + number}@N08_3655084291_d8b58466fa.{'mov' if number % 2 else 'avi'}" for number in range(8)]
    for number, name in enumerate(names):
        on_disk = {2: name.replace(".avi", ".mp4"), 3: f"{name}.mp4"}.get(number, name)
        put(raw / "videos" / on_disk, tiny_video(number, on_disk.rpartition(".")[2]))
    for split, part in (("train", range(5)), ("val", (5,)), ("test", (6, 7))):
        entries = [
            {"annotation_id": 3 * number + moment, "video": names[number], "num_segments": 6}
            | {"description": f"bar {number} is at place {moment}.", "times": [[moment, moment]] * 4, "dl_link": ""}
            for moment in range(3)
            for number in part
        ]
        put(raw / f"{split}_data.json", entries)
    return []


def vatex(raw: Path) -> list[str]:
    """One clip is missing, and one must be cut from a whole video."""
    ids = [f"Ptf_2VRj-V{number}_000000_000001" for number in range(10)]
    videos(raw / "clips", ids[:8], "mp4")
    put(raw / "whole" / "Ptf_2VRj-V8.mp4", tiny_video(8))
    for name, part in (("training_v1.0", [*ids[:4], ids[8]]), ("validation_v1.0", ids[4:6]),
                       ("public_test_english_v1.1", [*ids[6:8], ids[9]])):  # fmt: skip
        entries = [{"videoID": id, "enCap": [f"bar {id[10]} moves, wording {n}" for n in range(10)]} for id in part]
        put(raw / f"vatex_{name}.json", entries)
    return []


def folder(raw: Path) -> list[str]:
    names = [f"{label}/clip.{number}" for label in ("run", "walk") for number in range(4)]
    videos(raw, names, "mp4")
    return []


def listed(raw: Path) -> list[str]:
    """A CSV of stills with captions."""
    rows = ["path,label,caption"]
    for number in range(6):
        put(raw / f"{number}.png", tiny_image(number, "PNG"))
        rows += [f"{number}.png,{'even' if number % 2 == 0 else 'odd'},number {number} in wording {n}" for n in (1, 2)]
    put(raw / "list.csv", "\n".join(rows))
    return []


Builder = Callable[[Path], list[str]]
