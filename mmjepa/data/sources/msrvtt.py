"""MSR-VTT: ``video<n>.mp4`` and 20 sentences each, in the 1k-A protocol of retrieval or in the full split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmjepa.data.preparation.options import VideoPreparationConfig
from mmjepa.data.preparation.raw import RawFolder, read_entries, read_table
from mmjepa.data.preparation.records import SplitPlan, split_up
from mmjepa.data.preparation.splits import prepare
from mmjepa.errors import UserError

PROTOCOLS = ("1k-A", "full")
PUBLISHED_1K_A = {"train": 9_000, "test": 1_000}
PUBLISHED_FULL = {"train": 6_513, "validate": 497, "test": 2_990}
FOLDERS = {"train": "msrvtt-full-train", "validate": "msrvtt-full-validation", "test": "msrvtt-full-test"}


@dataclass
class MsrvttConfig(VideoPreparationConfig):
    """``protocol``: ``1k-A`` writes msrvtt-train (9,000 videos) and msrvtt-test (1,000 videos with one sentence each),
    ``full`` writes msrvtt-full-train, -validation and -test (2,990 videos with all sentences)."""

    protocol: str = "1k-A"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.protocol not in PROTOCOLS:
            raise UserError(f"protocol={self.protocol}: choose {' or '.join(PROTOCOLS)}")


@dataclass(frozen=True)
class _Annotations:
    """Videos by id as published, sentences by video id, and the files that say so."""

    videos: Mapping[str, Mapping[str, Any]]
    sentences: Mapping[str, Sequence[str]]
    files: tuple[Path, ...]


def write_msrvtt(config: MsrvttConfig) -> None:
    """MSR-VTT to shards, in the 1k-A protocol or the full split."""
    raw = RawFolder(config.raw, config.videos)
    annotations = _read_annotations(raw)
    plans = _one_k_a(raw, annotations) if config.protocol == "1k-A" else _full(raw, annotations)
    raw.log_unnamed()
    prepare(config, "data_prep/msrvtt.py", plans, config.video, protocol=config.protocol)


def _read_annotations(raw: RawFolder) -> _Annotations:
    """Of MSRVTT_data.json, which holds all videos, or of the two files of the original challenge."""
    if raw.has("MSRVTT_data.json"):
        files: tuple[Path, ...] = (raw.annotation("MSRVTT_data.json"),)
    else:
        files = (raw.annotation("train_val_videodatainfo.json"), raw.annotation("test_videodatainfo.json"))
    videos: dict[str, Mapping[str, Any]] = {}
    sentences: defaultdict[str, list[str]] = defaultdict(list)
    for path in files:
        videos |= {entry["video_id"]: entry for entry in read_entries(path, "video_id", "split", inside="videos")}
        for entry in read_entries(path, "video_id", "caption", inside="sentences"):
            sentences[entry["video_id"]].append(entry["caption"])
    return _Annotations(videos, sentences, files)


def _one_k_a(raw: RawFolder, annotations: _Annotations) -> list[SplitPlan]:
    train = raw.annotation("MSRVTT_train.9k.csv")
    test = raw.annotation("MSRVTT_JSFUSION_test.csv")
    single = {row["video_id"]: [row["sentence"]] for row in read_table(test, ("video_id", "sentence"))}
    trained = [row["video_id"] for row in read_table(train, ("video_id",))]
    both = single.keys() & set(trained)
    if both:
        raise UserError(f"{len(both)} videos are in {train.name} and {test.name}, e.g. {min(both)}")
    return [
        _plan(raw, annotations, "msrvtt-train", "train", trained, annotations.sentences, PUBLISHED_1K_A, (train,)),
        _plan(raw, annotations, "msrvtt-test", "test", list(single), single, PUBLISHED_1K_A, (test,)),
    ]


def _full(raw: RawFolder, annotations: _Annotations) -> list[SplitPlan]:
    plans = []
    for split, folder in FOLDERS.items():
        ids = [id for id, entry in annotations.videos.items() if entry["split"] == split]
        plans.append(_plan(raw, annotations, folder, split, ids, annotations.sentences, PUBLISHED_FULL, ()))
    return plans


def _plan(
    raw: RawFolder,
    annotations: _Annotations,
    folder: str,
    split: str,
    ids: Iterable[str],
    sentences: Mapping[str, Sequence[str]],
    published: Mapping[str, int],
    files: tuple[Path, ...],
) -> SplitPlan:
    records = []
    for id in ids:
        captions = tuple(sentences.get(id, ()))
        if not captions:
            raise UserError(f"{folder}: {id} has no sentence in {', '.join(path.name for path in annotations.files)}")
        details = {name: annotations.videos.get(id, {}).get(name) for name in ("category", "url")}
        records.append(raw.record(id, captions=captions, details=details))
    present, missing = split_up(records)
    read = (*annotations.files, *files)
    return SplitPlan("msrvtt", folder, split, "video", present, missing, read, published[split])
