"""VATEX: clips ``<YouTube id>_<start>_<end>``, seconds in six digits, with ten English captions each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmjepa.data.preparation.options import VideoPreparationConfig
from mmjepa.data.preparation.raw import RawFolder, read_entries, read_lines
from mmjepa.data.preparation.records import LeftOut, Record, SplitPlan, split_up
from mmjepa.data.preparation.splits import prepare
from mmjepa.errors import UserError

FILES = {
    "train": ("vatex_training_v1.0.json", 25_991),
    "validation": ("vatex_validation_v1.0.json", 3_000),
    "test": ("vatex_public_test_english_v1.1.json", 6_000),
}
"""Published annotation file and number of clips, by split."""


@dataclass
class VatexConfig(VideoPreparationConfig):
    """``test_list``: text file of clip ids, one a line. Then vatex-test is these clips of the published validation set
    (1,500 of them in the protocol of most retrieval papers) instead of the public test set, and vatex-validation the
    other ones."""

    test_list: str | None = None


def write_vatex(config: VatexConfig) -> None:
    """VATEX to shards with its English captions. Clips may be cut already, or are cut from whole YouTube videos."""
    raw = RawFolder(config.raw, config.videos)
    plans = [_published(raw, "train")]
    if config.test_list is None:
        plans += [_published(raw, "validation"), _published(raw, "test")]
    else:
        plans += _divided(raw, Path(config.test_list))
    raw.log_unnamed()
    listed = None if config.test_list is None else Path(config.test_list).name
    prepare(config, "data_prep/vatex.py", plans, config.video, test_list=listed)


def _published(raw: RawFolder, split: str) -> SplitPlan:
    name, published = FILES[split]
    listed = raw.annotation(name)
    return _plan(raw, split, read_entries(listed, "videoID", "enCap"), (listed,), published)


def _divided(raw: RawFolder, test_list: Path) -> list[SplitPlan]:
    """The published validation set in two."""
    listed = raw.annotation(FILES["validation"][0])
    entries = read_entries(listed, "videoID", "enCap")
    wanted = set(read_lines(test_list))
    strangers = wanted - {entry["videoID"] for entry in entries}
    if strangers:
        raise UserError(f"{test_list}: {len(strangers)} ids are not in {listed.name}, e.g. {min(strangers)}")
    files = (listed, test_list)
    test = [entry for entry in entries if entry["videoID"] in wanted]
    rest = [entry for entry in entries if entry["videoID"] not in wanted]
    published = FILES["validation"][1] - len(wanted)
    return [_plan(raw, "validation", rest, files, published), _plan(raw, "test", test, files, None)]


def _plan(
    raw: RawFolder, split: str, entries: Iterable[Mapping[str, Any]], files: tuple[Path, ...], published: int | None
) -> SplitPlan:
    present, missing = split_up(_record(raw, entry, files[0]) for entry in entries)
    return SplitPlan("vatex", f"vatex-{split}", split, "video", present, missing, files, published)


def _record(raw: RawFolder, entry: Mapping[str, Any], listed: Path) -> Record | LeftOut:
    id = str(entry["videoID"])
    captions = tuple(str(text) for text in entry["enCap"])
    matched = re.fullmatch(r"(.+)_(\d{6})_(\d{6})", id)
    if matched is None or not captions:
        raise UserError(f"{listed}: {id}: not <YouTube id>_<start>_<end> with captions")
    if raw.video(id) is None and (whole := raw.video(matched[1])) is not None:
        return Record(id, whole, captions=captions, window=(float(matched[2]), float(matched[3])))
    return raw.record(id, captions=captions)
