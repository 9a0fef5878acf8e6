"""A small world for alignment: coloured videos with captions, a nano model, and a text tower of a few words."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from mmjepa.data.manifest import Provenance, ShardSetWriter
from mmjepa.data.samples import Sample
from mmjepa.models import ModelConfig, PredictorConfig
from mmjepa.text import TextTower

SIDE, FRAMES = 32, 8
COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220), "yellow": (220, 210, 40)}
WORDS = ("red", "green", "blue", "yellow", "left", "right", "square", "goes", "moves")
MODEL = ModelConfig("test", 24, 4, 2, 2.0, 4, FRAMES, SIDE, 2, 16, predictor=PredictorConfig(24, 1, 2))


class BagOfWords(TextTower):
    """A text tower that counts the words it knows."""

    def __init__(self) -> None:
        super().__init__("bag_of_words", len(WORDS), 16)

    def _embed(self, texts: list[str]) -> Tensor:
        return torch.tensor([[float(text.split().count(word)) + 0.01 for word in WORDS] for text in texts])


def _video(colour: str, direction: str, offset: int) -> bytes:
    """A square of one colour that crosses half of the picture."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "10", "threads": "1"}
        for frame in range(FRAMES):
            picture = np.full((SIDE, SIDE, 3), 90, dtype=np.uint8)
            left = 2 * frame if direction == "right" else 2 * (FRAMES - 1 - frame)
            picture[8 + offset : 18 + offset, left : left + 12] = COLOURS[colour]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def sample(number: int, split: str) -> Sample:
    """Video ``number``: colours and directions take turns; two captions and two hard negatives."""
    colour, direction = list(COLOURS)[number % 4], ("left", "right")[number // 4 % 2]
    other, back = list(COLOURS)[(number + 1) % 4], ("right", "left")[number // 4 % 2]
    captions = [f"{colour} square goes {direction}", f"{colour} square moves {direction}"]
    negatives = {
        "appearance_swapped": f"{other} square goes {direction}",
        "motion_swapped": f"{colour} square goes {back}",
    }
    meta = {"label": number % 4, "captions": captions, "hard_negatives": negatives}
    return Sample(f"{split}-{number:03d}", _video(colour, direction, number % 7), "mp4", meta)


def write_videos(folder: Path, numbers: range, captions: bool = True, class_names: Sequence[str] | None = None) -> None:
    """One split of videos; without captions, or with names of the four classes, if asked for."""
    provenance = Provenance("tests", {}, 0, {}, "none")
    with ShardSetWriter(
        folder, name="squares", split=folder.name, kind="video", provenance=provenance, samples_per_shard=16
    ) as writer:
        for number in numbers:
            one = sample(number, folder.name)
            if not captions:
                one.meta["captions"] = []
            if class_names is not None:
                one.meta["label_name"] = class_names[number % 4]
            writer.write(one)
