"""UCF-101: ``UCF-101/<Class>/v_<Class>_g01_c01.avi`` and ``ucfTrainTestlist/`` with three train/test folds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmjepa.data.preparation.options import VideoPreparationConfig
from mmjepa.data.preparation.raw import RawFolder, read_lines
from mmjepa.data.preparation.records import SplitPlan, split_up
from mmjepa.data.preparation.splits import prepare
from mmjepa.errors import UserError

PUBLISHED = {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}
"""Videos of train and test, by fold."""


@dataclass
class Ucf101Config(VideoPreparationConfig):
    """``fold``: 1, 2 or 3, of which 1 is written to ucf101-train and ucf101-test, others to ucf101-fold<n>-..."""

    fold: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fold not in PUBLISHED:
            raise UserError(f"fold={self.fold}: choose 1, 2 or 3")


def write_ucf101(config: Ucf101Config) -> None:
    """UCF-101 to shards, one of its three train/test folds."""
    raw = RawFolder(config.raw, config.videos)
    classes = raw.annotation("classInd.txt")
    labels = _read_classes(classes)
    name = "ucf101" if config.fold == 1 else f"ucf101-fold{config.fold}"
    plans = []
    for split, published in zip(("train", "test"), PUBLISHED[config.fold], strict=True):
        listed = raw.annotation(f"{split}list{config.fold:02d}.txt")
        records = []
        for line in read_lines(listed):
            class_name, _, file = line.split()[0].partition("/")
            if class_name not in labels or not file:
                raise UserError(f"{listed}: {line}: not <class of {classes.name}>/<file>")
            label = labels[class_name]
            records.append(raw.record(Path(file).stem, label=label, label_name=class_name))
        present, missing = split_up(records)
        files = (classes, listed)
        plans.append(SplitPlan("ucf101", f"{name}-{split}", split, "video", present, missing, files, published))
    raw.log_unnamed()
    prepare(config, "data_prep/ucf101.py", plans, config.video, fold=config.fold)


def _read_classes(path: Path) -> dict[str, int]:
    """Class name -> label from 0; the file counts from 1."""
    rows = [line.split() for line in read_lines(path)]
    if not all(len(row) == 2 and row[0].isdigit() for row in rows):
        raise UserError(f"{path}: lines must be <number> <class>")
    return {name: int(number) - 1 for number, name in rows}
