"""Pictures in parquet files, as the Hugging Face hub stores them: ``image`` {bytes, path} and ``label``."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmjepa.data.preparation.records import ParquetRow
from mmjepa.errors import UserError


def read_images(rows: Sequence[ParquetRow]) -> dict[ParquetRow, bytes]:
    """The pictures' files. Every row group is read once, since samples of a shard come from all over the data set."""
    groups: defaultdict[tuple[Path, int], list[ParquetRow]] = defaultdict(list)
    for row in rows:
        groups[row.path, row.group].append(row)
    images: dict[ParquetRow, bytes] = {}
    for (path, group), wanted in sorted(groups.items()):
        column = _open(path).read_row_group(group, columns=["image"]).column("image")
        images |= {row: column[row.row].as_py()["bytes"] or b"" for row in wanted}
    return images


def read_labels(path: Path) -> Iterator[tuple[ParquetRow, int]]:
    """(row, label) of all rows of a file, without reading its pictures. Raises UserError if a column is missing."""
    file = _open(path)
    lacking = {"image", "label"} - set(file.schema_arrow.names)
    if lacking:
        raise UserError(f"{path}: no column {', '.join(sorted(lacking))}")
    for group in range(file.num_row_groups):
        labels = file.read_row_group(group, columns=["label"]).column("label").to_pylist()
        yield from ((ParquetRow(path, group, row), label) for row, label in enumerate(labels))


def read_class_names(path: Path) -> list[str]:
    """Names of the classes, in the order of their labels, as the file's own description of its columns gives them."""
    try:
        description = json.loads((_open(path).schema_arrow.metadata or {})[b"huggingface"])
        return list(description["info"]["features"]["label"]["names"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: does not say how its labels are called (no Hugging Face class names)") from error


def _open(path: Path) -> Any:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise UserError("parquet files need pyarrow: pip install 'mmjepa[parquet]'") from error
    try:
        return ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: is not a readable parquet file") from error
