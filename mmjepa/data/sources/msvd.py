"""MSVD (YouTube2Text): ``<YouTube id>_<start>_<end>.avi``, one text file of descriptions, three lists of names."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from mmjepa.data.preparation.options import VideoPreparationConfig
from mmjepa.data.preparation.raw import RawFolder, read_lines
from mmjepa.data.preparation.records import SplitPlan, split_up
from mmjepa.data.preparation.splits import prepare
from mmjepa.errors import UserError

PUBLISHED = {"train": 1_200, "val": 100, "test": 670}
FOLDERS = {"train": "msvd-train", "val": "msvd-validation", "test": "msvd-test"}


def write_msvd(config: VideoPreparationConfig) -> None:
    """MSVD to shards: about 40 captions a video."""
    raw = RawFolder(config.raw, config.videos)
    described = raw.annotation("AllVideoDescriptions.txt")
    captions = _read_descriptions(described)
    plans = []
    for split, folder in FOLDERS.items():
        listed = raw.annotation(f"{split}_list.txt")
        records = []
        for name in read_lines(listed):
            if name not in captions:
                raise UserError(f"{listed}: {name} has no description in {described.name}")
            records.append(raw.record(name, captions=tuple(captions[name])))
        present, missing = split_up(records)
        files = (described, listed)
        plans.append(SplitPlan("msvd", folder, split, "video", present, missing, files, PUBLISHED[split]))
    raw.log_unnamed()
    prepare(config, "data_prep/msvd.py", plans, config.video)


def _read_descriptions(path: Path) -> dict[str, list[str]]:
    """Video name -> descriptions. A line is the name, a space, the description; the head is commented out by #."""
    captions: defaultdict[str, list[str]] = defaultdict(list)
    for line in read_lines(path):
        name, _, text = line.partition(" ")
        if not line.startswith("#") and text.strip():
            captions[name].append(text.strip())
    if not captions:
        raise UserError(f"{path}: holds no line <video> <description>")
    return dict(captions)
