"""What every frozen text tower promises: strings in, unit vectors out, each different string embedded once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class TextTower(ABC):
    """A text encoder that is never trained here.

    ``name`` identifies model and weights (it is saved beside heads fitted on it); ``width`` is D. Subclasses embed a
    batch of different strings; this class removes duplicates, batches, normalises, and remembers.
    """

    def __init__(self, name: str, width: int, batch: int) -> None:
        self.name, self.width, self.batch = name, width, batch
        self._known: dict[str, Tensor] = {}

    @abstractmethod
    def _embed(self, texts: list[str]) -> Tensor:
        """Different strings -> (B, D), any scale, any device."""

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (B, D), float32 on the CPU, unit length, in the order of ``texts`` (at least one)."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        for start in range(0, len(new), self.batch):
            chunk = new[start : start + self.batch]
            embedded = F.normalize(self._embed(chunk).float().cpu(), dim=1)
            self._known.update(zip(chunk, embedded, strict=True))
        return torch.stack([self._known[text] for text in texts])
