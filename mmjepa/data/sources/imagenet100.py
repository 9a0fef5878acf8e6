"""ImageNet-100: 100 classes of an ILSVRC-2012 tree, or the parquet files of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mmjepa.data.preparation.options import PreparationConfig, StillEncoding
from mmjepa.data.preparation.parquet import read_class_names, read_labels
from mmjepa.data.preparation.raw import read_json, read_lines, read_table
from mmjepa.data.preparation.records import Record, SplitPlan
from mmjepa.data.preparation.splits import prepare
from mmjepa.errors import UserError

PUBLISHED = {"train": 126_689, "validation": 5_000}
"""Of the 100 classes of Tian et al. 2020 (arXiv 1906.05849), which the hub's clane9/imagenet-100 holds too."""
CLASSES = 100
FOLDERS = {"train": ("train", "train.X*"), "validation": ("val", "val.X*", "validation")}
VALIDATION_LABELS = "LOC_val_solution.csv"


@dataclass
class Imagenet100Config(PreparationConfig):
    """``classes``: a text file with one WordNet id a line, or a JSON object that maps them to names; the labels follow
    its order. Parquet files carry their classes and need none."""

    classes: str | None = None
    still: StillEncoding = field(default_factory=StillEncoding)


def write_imagenet100(config: Imagenet100Config) -> None:
    """ImageNet-100 to shards, from an ImageNet tree and a list of classes, or from parquet files."""
    raw = Path(config.raw)
    if not raw.is_dir():
        raise UserError(f"raw={raw}: there is no such folder")
    parquet = sorted(raw.rglob("*.parquet"))
    plans = _from_parquet(parquet, config) if parquet else _from_tree(raw, config)
    prepare(config, "data_prep/imagenet100.py", plans, config.still)


def _from_parquet(files: list[Path], config: Imagenet100Config) -> list[SplitPlan]:
    if config.classes is not None:
        raise UserError("classes=... is for an ImageNet tree; the parquet files carry their own classes")
    names = read_class_names(files[0])
    _check_classes(config, files[0], len(names))
    plans = []
    for split, published in PUBLISHED.items():
        # data/train-00000-of-00017.parquet, or default/train/0000.parquet as the hub converts them
        mine = [path for path in files if path.name.startswith(f"{split}-") or path.parent.name == split]
        if not mine:
            raise UserError(f"{config.raw}: no parquet file called {split}-...")
        rows = (row for path in mine for row in read_labels(path))
        records = [
            Record(f"{number:07d}", row, label=label, label_name=names[label])
            for number, (row, label) in enumerate(rows)
        ]
        plans.append(SplitPlan("imagenet100", f"imagenet100-{split}", split, "image", records, published=published))
    return plans


def _from_tree(raw: Path, config: Imagenet100Config) -> list[SplitPlan]:
    if config.classes is None:
        raise UserError("classes=FILE is needed: the list of the 100 classes, one WordNet id (n01558993) a line")
    listed = Path(config.classes)
    names = _read_classes(listed)
    _check_classes(config, listed, len(names))
    labels = {wnid: number for number, wnid in enumerate(names)}
    plans = []
    for split, published in PUBLISHED.items():
        files = sorted(_files(raw, split, labels))
        records = [
            Record(path.stem, path, label=labels[wnid], label_name=names[wnid], details={"wnid": wnid})
            for path, wnid in files
        ]
        lacking = labels.keys() - {wnid for _, wnid in files}
        if lacking:
            raise UserError(f"{raw}: no {split} images of {len(lacking)} of {len(labels)} classes, e.g. {min(lacking)}")
        folder = f"imagenet100-{split}"
        plans.append(SplitPlan("imagenet100", folder, split, "image", records, (), (listed,), published))
    return plans


def _files(raw: Path, split: str, labels: dict[str, int]) -> Iterator[tuple[Path, str]]:
    """(file, WordNet id) of the images of a split: in folders of classes, or flat with a table of labels."""
    folders = [path for pattern in FOLDERS[split] for root in (raw, *_nested(raw)) for path in root.glob(pattern)]
    for folder in folders:
        for wnid in labels:
            yield from ((path, wnid) for path in (folder / wnid).glob("*") if _is_image(path))
    flat = [path for folder in folders for path in folder.glob("*") if _is_image(path)]
    if flat:
        tables = sorted(raw.rglob(VALIDATION_LABELS))
        if not tables:
            raise UserError(f"{flat[0].parent}: is not sorted into classes, and there is no {VALIDATION_LABELS}")
        of_image = {
            row["ImageId"]: row["PredictionString"].split()[0]
            for row in read_table(tables[0], ("ImageId", "PredictionString"))
        }
        yield from ((path, of_image[path.stem]) for path in flat if of_image.get(path.stem) in labels)


def _nested(raw: Path) -> list[Path]:
    """Where the folders lie in the archive as published."""
    return [path for path in (raw / "Data" / "CLS-LOC", raw / "ILSVRC" / "Data" / "CLS-LOC") if path.is_dir()]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in (".jpeg", ".jpg", ".png")


def _read_classes(path: Path) -> dict[str, str]:
    """WordNet id -> name (the id itself where the list has no names), in the list's order."""
    if not path.is_file():
        raise UserError(f"classes={path}: there is no such file")
    if path.suffix == ".json":
        content = read_json(path)
        if not isinstance(content, dict):
            raise UserError(f"{path}: must map WordNet ids to names")
        return {str(wnid): str(name) for wnid, name in content.items()}
    rows = [line.split(maxsplit=1) for line in read_lines(path)]
    return {row[0]: row[1] if len(row) == 2 else row[0] for row in rows}


def _check_classes(config: Imagenet100Config, path: Path, classes: int) -> None:
    if config.counts == "published" and classes != CLASSES:
        raise UserError(f"{path}: {classes} classes, not {CLASSES}; counts=any takes it as it is")
