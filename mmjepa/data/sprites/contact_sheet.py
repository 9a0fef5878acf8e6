"""Contact sheets: film strips of stored samples with their labels and captions, for a look with one's own eyes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmjepa.data.decoding import decode
from mmjepa.data.samples import Sample
from mmjepa.data.shards import ShardedSplit

_ZOOM, _GAP, _LINE, _COLUMNS = 2, 4, 15, 8


def write_contact_sheet(split: Path, path: Path, rows: int = 16) -> None:
    """Write a PNG of up to ``rows`` samples of the split at folder ``split``, read and decoded as training would.

    One sample a row: eight frames from first to last (stills: one), then key, label and captions; samples come from
    as many classes as there are rows, in the order of the labels.
    """
    data = ShardedSplit(split)
    first_of_class: dict[int, Sample] = {}
    for index in data.present():
        sample = data.read(index)
        first_of_class.setdefault(sample.meta["label"], sample)
        if len(first_of_class) == rows:
            break
    strips = [_strip(first_of_class[label]) for label in sorted(first_of_class)]
    sheet = Image.new(
        "RGB", (max(strip.width for strip in strips), sum(strip.height + _GAP for strip in strips)), "white"
    )
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height + _GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _strip(sample: Sample) -> Image.Image:
    """Frames side by side with the text to their right."""
    shown = decode(sample, lambda count: np.unique(np.linspace(0, count - 1, _COLUMNS).round().astype(int)))
    frames = shown.pixels.numpy()
    height, width = frames.shape[1] * _ZOOM, frames.shape[2] * _ZOOM
    lines, font = _lines(sample), ImageFont.load_default(size=11)
    left = len(frames) * (width + _GAP) + _GAP
    right = left + int(max(font.getlength(line) for line in lines)) + _GAP
    strip = Image.new("RGB", (right, max(height, len(lines) * _LINE)), "white")
    for column, frame in enumerate(frames):
        image = Image.fromarray(frame).resize((width, height), Image.Resampling.NEAREST)
        strip.paste(image, (column * (width + _GAP), 0))
    draw = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        draw.text((left, number * _LINE), line, fill="black" if number else "darkred", font=font)
    return strip


def _lines(sample: Sample) -> list[str]:
    meta = sample.meta
    title = f"{sample.key}  [{meta['label']}] {meta['label_name']}{'  HELD OUT' if meta['held_out'] else ''}"
    return [title, *meta["captions"], *(f"not: {text}" for text in meta["hard_negatives"].values())]
