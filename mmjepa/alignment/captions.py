"""Captions of a set of videos as tables of numbers: which wording belongs to which video, and its embedding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmjepa.alignment.losses import NO_CAPTION
from mmjepa.errors import UserError
from mmjepa.text import TextTower


class CaptionTable:
    """``wordings`` (V, M): ids of each video's captions, padded; ``embeddings`` (U, D): one row per different wording.

    Raises UserError if a video has no caption.
    """

    def __init__(self, keys: Sequence[str], captions: Sequence[Sequence[str]], tower: TextTower) -> None:
        silent = [key for key, texts in zip(keys, captions, strict=True) if not texts]
        if silent:
            raise UserError(f"{len(silent)} of {len(keys)} videos have no captions, e.g. {silent[0]}")
        ids = {text: number for number, text in enumerate(dict.fromkeys(text for texts in captions for text in texts))}
        self.count = torch.tensor([len(texts) for texts in captions])
        self.wordings = torch.full((len(captions), int(self.count.max())), NO_CAPTION)
        for video, texts in enumerate(captions):
            self.wordings[video, : len(texts)] = torch.tensor([ids[text] for text in texts])
        self.embeddings = tower.encode(list(ids))

    def pick(self, videos: Tensor, uniforms: Tensor) -> Tensor:
        """One wording id per video (B,), chosen by uniform numbers in [0, 1)."""
        return self.wordings[videos, (uniforms * self.count[videos]).long()]
