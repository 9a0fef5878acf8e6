"""Example retrievals as film strips: what was asked, which clip is true, and what each encoder found first."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmjepa.data.clips import hold_last, spread_evenly
from mmjepa.data.decoding import decode
from mmjepa.data.samples import UnusableSample
from mmjepa.data.shards import ShardedSplit
from mmjepa.evaluation.report.rows import table_order
from mmjepa.evaluation.report.style import title_of

FRAMES = 8
FRAME_PIXELS = 80
SHOWN = 3
"""Retrieved clips shown per encoder."""
GAP_PIXELS = 2


@dataclass(frozen=True)
class Example:
    """One query and what one encoder retrieved: keys of clips, best first; ``truth`` lists every true clip's key."""

    query: str
    truth: list[str]
    retrieved: list[str]
    encoder: str


class ClipPictures:
    """Film strips of clips by key, from the splits that were searched."""

    def __init__(self, splits: Sequence[Path]) -> None:
        self._splits = [ShardedSplit(path) for path in splits]
        self._where = {split.key(i): (split, i) for split in self._splits for i in split.present()}
        self._pictures: dict[str, str | None] = {}

    def strip(self, key: str) -> str | None:
        """The clip's frames side by side as a data URI; None if it is not in the splits or cannot be decoded."""
        if key not in self._pictures:
            self._pictures[key] = self._render(key)
        return self._pictures[key]

    def _render(self, key: str) -> str | None:
        if key not in self._where:
            return None
        split, index = self._where[key]
        try:
            frames = decode(split.read(index), lambda count: hold_last(spread_evenly(count, FRAMES), count)[0])
        except UnusableSample:
            return None  # the page says that the picture is missing
        return data_uri(film_strip(frames.pixels.numpy()))


def film_strip(frames: np.ndarray) -> Image.Image:
    """Frames (T, H, W, 3) uint8 side by side with a transparent gap between them."""
    height, width = frames.shape[1:3]
    scaled = (max(1, round(width * FRAME_PIXELS / height)), FRAME_PIXELS)
    sheet = Image.new("RGBA", (len(frames) * (scaled[0] + GAP_PIXELS) - GAP_PIXELS, FRAME_PIXELS))
    for i, frame in enumerate(frames):
        sheet.paste(Image.fromarray(frame).resize(scaled, Image.Resampling.LANCZOS), (i * (scaled[0] + GAP_PIXELS), 0))
    return sheet


def data_uri(picture: Image.Image) -> str:
    """The picture as a WebP data URI, small enough to carry dozens in one page."""
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def parse_examples(mappings: Sequence[Mapping[str, Any]]) -> dict[str, list[Example]]:
    """Examples by query, queries in their order, encoders in table order."""
    examples: dict[str, list[Example]] = {}
    for one in mappings:
        example = Example(one["query"], list(one["truth"]), list(one["retrieved"]), one["encoder"])
        examples.setdefault(example.query, []).append(example)
    return {query: sorted(group, key=lambda one: table_order(one.encoder)) for query, group in examples.items()}


def query_html(query: str, group: Sequence[Example], pictures: ClipPictures) -> str:
    """One query: its true clip, then each encoder's best clips, right ones marked ✓, wrong ones ✗."""
    parts = [f'<div class="query"><q>{html.escape(query)}</q>']
    parts.append(f'<div class="strips">{_strip_html("true clip", group[0].truth[0], pictures, None)}</div>')
    for example in group:
        parts.append(f"<h3>{html.escape(title_of(example.encoder))}</h3>")
        found = [
            _strip_html(f"{place}", key, pictures, key in example.truth)
            for place, key in enumerate(example.retrieved[:SHOWN], start=1)
        ]
        parts.append(f'<div class="strips">{"".join(found)}</div>')
    return "".join(parts) + "</div>"


def _strip_html(label: str, key: str, pictures: ClipPictures, right: bool | None) -> str:
    source = pictures.strip(key)
    picture = f'<img src="{source}" alt="film strip of clip {html.escape(key)}">' if source else "<em>no picture</em>"
    kind, mark = {None: ("", ""), True: (" right", "✓ right"), False: (" wrong", "✗ wrong")}[right]
    return f'<div class="strip{kind}">{picture}<span class="soft">{label} <span class="mark">{mark}</span></span></div>'
