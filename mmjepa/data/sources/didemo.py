"""DiDeMo: JSON lists of moments with a description each; retrieval searches a video by all of them as one paragraph."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from mmjepa.data.preparation.options import VideoPreparationConfig
from mmjepa.data.preparation.raw import RawFolder, read_entries
from mmjepa.data.preparation.records import LeftOut, Record, SplitPlan, split_up
from mmjepa.data.preparation.splits import prepare
from mmjepa.errors import UserError

PUBLISHED = {"train": 8_395, "val": 1_065, "test": 1_004}
"""Videos, not moments."""
FOLDERS = {"train": "didemo-train", "val": "didemo-validation", "test": "didemo-test"}


@dataclass
class DidemoConfig(VideoPreparationConfig):
    """``first_seconds``: take only the beginning of every video, as some do with 30; null takes all of it."""

    first_seconds: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first_seconds is not None and self.first_seconds <= 0:
            raise UserError(f"first_seconds={self.first_seconds}: must be positive, or null")


def write_didemo(config: DidemoConfig) -> None:
    """DiDeMo to shards for paragraph-video retrieval: a video's descriptions, in the order of the file, joined."""
    raw = RawFolder(config.raw, config.videos)
    plans = []
    for split, folder in FOLDERS.items():
        listed = raw.annotation(f"{split}_data.json")
        moments: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for entry in read_entries(listed, "video", "description", "times"):
            moments[entry["video"]].append(entry)
        records = [_record(raw, video, entries, config.first_seconds) for video, entries in moments.items()]
        present, missing = split_up(records)
        plans.append(SplitPlan("didemo", folder, split, "video", present, missing, (listed,), PUBLISHED[split]))
    raw.log_unnamed()
    prepare(config, "data_prep/didemo.py", plans, config.video, first_seconds=config.first_seconds)


def _record(raw: RawFolder, video: str, moments: list[dict[str, Any]], first_seconds: float | None) -> Record | LeftOut:
    paragraph = " ".join(str(moment["description"]).strip() for moment in moments)
    details = {"moments": [{"description": one["description"], "times": one["times"]} for one in moments]}
    window = None if first_seconds is None else (0.0, first_seconds)
    return raw.record(video, captions=(paragraph,), details=details, window=window)
