"""What every frozen text tower promises: strings in, unit vectors out, each different string embedded once."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmjepa.errors import UserError

PROBE_TEXT = "a small red square moves from left to right"
"""Its embedding, roughly, is part of the name of stored embeddings: other weights, other files."""


class TextTower(ABC):
    """A text encoder that is never trained here.

    ``name`` identifies model and weights (it is saved beside heads fitted on it); ``width`` is D. Subclasses embed a
    batch of different strings; this class removes duplicates, batches, normalises, and remembers.
    """

    def __init__(self, name: str, width: int, batch: int) -> None:
        self.name, self.width, self.batch = name, width, batch
        self.cache: Path | None = None
        """Folder to keep embeddings in, one file per set of strings; None keeps them in memory only."""
        self.bf16_on: str | None = None
        """Type of the device whose matrix products run in bfloat16; None: float32."""
        self._known: dict[str, Tensor] = {}

    @abstractmethod
    def _embed(self, texts: list[str]) -> Tensor:
        """Different strings -> (B, D), any scale, any device."""

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (B, D), float32 on the CPU, unit length, in the order of ``texts`` (at least one)."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            embedded = self._embed_in_batches(new) if self.cache is None else self._from_cache(new, self.cache)
            self._known.update(zip(new, embedded, strict=True))
        return torch.stack([self._known[text] for text in texts])

    def _embed_in_batches(self, texts: list[str]) -> Tensor:
        # Batches of texts of about one length: a batch costs as much as if all its texts were its longest.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        embedded = torch.empty(len(texts), self.width)
        with torch.autocast(self.bf16_on or "cpu", dtype=torch.bfloat16, enabled=self.bf16_on is not None):
            for start in range(0, len(order), self.batch):
                rows = order[start : start + self.batch]
                embedded[rows] = F.normalize(self._embed([texts[row] for row in rows]).float().cpu(), dim=1)
        return embedded

    def _from_cache(self, texts: list[str], folder: Path) -> Tensor:
        """Embeddings of exactly this list of strings, from ``folder`` or made and put there."""
        probe = [round(value, 2) for value in self._embed_in_batches([PROBE_TEXT])[0].tolist()]
        key = hashlib.sha256(json.dumps([self.name, self.bf16_on is None, probe, texts]).encode()).hexdigest()
        path = folder / f"{key[:32]}.safetensors"
        if path.is_file():
            return load_file(path)["embeddings"]
        embedded = self._embed_in_batches(texts)
        partial = folder / f".{uuid.uuid4().hex}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_file({"embeddings": embedded}, partial)
            os.replace(partial, path)
        except OSError as error:
            raise UserError(f"cannot keep text embeddings in {folder}: {error.strerror}") from error
        return embedded
