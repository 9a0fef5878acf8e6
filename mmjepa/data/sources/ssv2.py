"""Something-Something V2: ``<id>.webm``, and JSON lists of clips with their template and what fills its blanks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmjepa.data.preparation.options import VideoPreparationConfig
from mmjepa.data.preparation.raw import RawFolder, read_entries, read_json
from mmjepa.data.preparation.records import LeftOut, Record, SplitPlan, split_up
from mmjepa.data.preparation.splits import prepare
from mmjepa.errors import UserError

PUBLISHED = {"train": 168_913, "validation": 24_777, "test": 27_157}
CLASSES = 174


@dataclass
class Ssv2Config(VideoPreparationConfig):
    """``splits``: any of train, validation and test; the published test list has no labels."""

    splits: list[str] = field(default_factory=lambda: ["train", "validation"])

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.splits or not set(self.splits) <= set(PUBLISHED):
            raise UserError(f"splits={self.splits}: choose from {', '.join(PUBLISHED)}")


def write_ssv2(config: Ssv2Config) -> None:
    """Something-Something V2 to shards. A clip's caption is its label with the objects named."""
    raw = RawFolder(config.raw, config.videos)
    classes = raw.annotation("something-something-v2-labels.json", "labels.json")
    labels = _read_classes(classes, config)
    plans = []
    for split in config.splits:
        listed = raw.annotation(f"something-something-v2-{split}.json", f"{split}.json")
        fields = ("id",) if split == "test" else ("id", "label", "template", "placeholders")
        records = [_record(raw, entry, labels, listed, split != "test") for entry in read_entries(listed, *fields)]
        present, missing = split_up(records)
        files, published = (classes, listed), PUBLISHED[split]
        plans.append(SplitPlan("ssv2", f"ssv2-{split}", split, "video", present, missing, files, published))
    raw.log_unnamed()
    prepare(config, "data_prep/ssv2.py", plans, config.video)


def _read_classes(path: Path, config: Ssv2Config) -> dict[str, int]:
    content = read_json(path)
    try:
        labels = {str(name): int(number) for name, number in content.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: must map each template to its number") from error
    if config.counts == "published" and len(labels) != CLASSES:
        raise UserError(f"{path}: names {len(labels)} classes, {CLASSES} were published; counts=any takes it as it is")
    return labels


def _record(
    raw: RawFolder, entry: Mapping[str, Any], labels: Mapping[str, int], listed: Path, labelled: bool
) -> Record | LeftOut:
    if not labelled:
        return raw.record(str(entry["id"]))
    # The list of classes has the templates without the brackets around their blanks.
    template = str(entry["template"]).replace("[", "").replace("]", "")
    if template not in labels:
        raise UserError(f"{listed}: clip {entry['id']}: its template is no class: {template}")
    return raw.record(
        str(entry["id"]),
        label=labels[template],
        label_name=template,
        captions=(str(entry["label"]),),
        details={"template": entry["template"], "placeholders": entry["placeholders"]},
    )
