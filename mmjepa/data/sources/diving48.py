"""Diving-48, labels of version 2: ``<vid_name>.mp4``, JSON lists, and a vocabulary of 48 dives in four parts."""

from __future__ import annotations

from pathlib import Path

from mmjepa.data.preparation.options import VideoPreparationConfig
from mmjepa.data.preparation.raw import RawFolder, read_entries, read_json
from mmjepa.data.preparation.records import SplitPlan, split_up
from mmjepa.data.preparation.splits import prepare
from mmjepa.errors import UserError

PUBLISHED = {"train": 15_027, "test": 1_970}
CLASSES = 48


def write_diving48(config: VideoPreparationConfig) -> None:
    """Diving-48 V2 to shards. Version 1 has other labels, and numbers on it do not compare."""
    raw = RawFolder(config.raw, config.videos)
    vocabulary = raw.annotation("Diving48_vocab.json")
    names = _read_vocabulary(vocabulary)
    plans = []
    for split, published in PUBLISHED.items():
        listed = raw.annotation(f"Diving48_V2_{split}.json")
        records = []
        for entry in read_entries(listed, "vid_name", "label", "start_frame", "end_frame"):
            label = entry["label"]
            if not isinstance(label, int) or not 0 <= label < len(names):
                raise UserError(f"{listed}: {entry['vid_name']}: label {label} is not in {vocabulary.name}")
            details = {"start_frame": entry["start_frame"], "end_frame": entry["end_frame"]}
            records.append(raw.record(entry["vid_name"], label=label, label_name=names[label], details=details))
        present, missing = split_up(records)
        files = (vocabulary, listed)
        plans.append(SplitPlan("diving48", f"diving48-{split}", split, "video", present, missing, files, published))
    raw.log_unnamed()
    prepare(config, "data_prep/diving48.py", plans, config.video)


def _read_vocabulary(path: Path) -> list[str]:
    content = read_json(path)
    if not isinstance(content, list) or len(content) != CLASSES or not all(isinstance(one, list) for one in content):
        raise UserError(f"{path}: must list {CLASSES} dives, each as a list of its parts")
    return ["-".join(str(part) for part in dive) for dive in content]
