"""Features on disk: each clip is decoded and encoded once per (encoder, data, condition), then read as often as needed.

<root>/<hash of the three>/features-00000.safetensors ...   tokens (b, T', S, D) float16, present (b, T') bool
<root>/<hash of the three>/index.json                       what they are, keys and captions; written last, atomically

A folder without index is unfinished and is filled again. Reading maps the files into memory: only rows that are asked
for are loaded.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import uuid
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmjepa.data.samples import ClipBatch
from mmjepa.errors import UserError
from mmjepa.frozen.checkpoint import fingerprint_of
from mmjepa.frozen.protocol import Tokens

logger = logging.getLogger(__name__)
INDEX_FILE = "index.json"
FLOAT16_MAX = torch.finfo(torch.float16).max


class FeatureSet:
    """The stored features of one data set under one condition: rows of tokens, with the clips' keys and captions."""

    def __init__(self, folder: Path) -> None:
        index = json.loads((folder / INDEX_FILE).read_text())
        self.keys: list[str] = index["keys"]
        self.captions: list[list[str]] = index["captions"]
        self._shards = [load_file(folder / name) for name in index["shards"]]
        self._ends = list(accumulate(len(shard["present"]) for shard in self._shards))

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def token_shape(self) -> tuple[int, int, int]:
        """(T', S, D)"""
        steps, spatial, width = self._shards[0]["tokens"].shape[1:]
        return steps, spatial, width

    def rows(self, indices: Iterable[int]) -> Tokens:
        """Features of the clips at ``indices``: float32 tokens (B, T', S, D), present (B, T')."""
        places = [self._place(index) for index in indices]
        tokens = torch.stack([self._shards[shard]["tokens"][row] for shard, row in places]).float()
        return Tokens(tokens, torch.stack([self._shards[shard]["present"][row] for shard, row in places]))

    def _place(self, index: int) -> tuple[int, int]:
        shard = bisect_right(self._ends, index)
        return shard, index - (self._ends[shard - 1] if shard else 0)


class FeatureStore:
    """Feature sets below one folder, made on first use and reused afterwards."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, encoder: str, data: str, condition: str) -> Path:
        """Where the features of (encoder fingerprint, data fingerprint, condition) lie."""
        return self.root / fingerprint_of(encoder, data, condition)[:24]

    def has(self, encoder: str, data: str, condition: str) -> bool:
        """Whether these features have been made."""
        return (self.folder(encoder, data, condition) / INDEX_FILE).is_file()

    def read(self, encoder: str, data: str, condition: str) -> FeatureSet:
        """The stored features. Raises FileNotFoundError if they have not been made."""
        return FeatureSet(self.folder(encoder, data, condition))

    def fill(
        self,
        encoder: str,
        data: str,
        conditions: Sequence[str],
        batches: Iterable[ClipBatch],
        encode: Callable[[ClipBatch, str], Tokens],
    ) -> None:
        """Make the features of all ``conditions`` in one pass over ``batches`` (file order): one shard per batch.

        ``encode`` maps (clips, condition) to tokens. Raises UserError if a feature does not fit float16.
        """
        targets = {condition: self.folder(encoder, data, condition) for condition in conditions}
        drafts = {
            condition: folder.with_name(f".{folder.name}-{uuid.uuid4().hex}") for condition, folder in targets.items()
        }
        for draft in drafts.values():
            draft.mkdir(parents=True)
        try:
            keys, captions, shards = _write_shards(drafts, batches, encode)
            for condition, draft in drafts.items():
                about = {"encoder": encoder, "data": data, "condition": condition}
                index = {**about, "shards": shards, "keys": keys, "captions": captions}
                (draft / INDEX_FILE).write_text(json.dumps(index))
                if not targets[condition].exists():  # another process may have been faster, with the same content
                    os.replace(draft, targets[condition])
        finally:
            for draft in drafts.values():
                shutil.rmtree(draft, ignore_errors=True)


def _write_shards(
    drafts: dict[str, Path], batches: Iterable[ClipBatch], encode: Callable[[ClipBatch, str], Tokens]
) -> tuple[list[str], list[list[str]], list[str]]:
    keys: list[str] = []
    captions: list[list[str]] = []
    shards: list[str] = []
    for number, batch in enumerate(batches):
        shards.append(f"features-{number:05d}.safetensors")
        keys += batch.keys
        captions += [meta.get("captions", []) for meta in batch.metas]
        for condition, draft in drafts.items():
            features = encode(batch, condition)
            contents = {"tokens": _half(features.tokens), "present": features.present.cpu().contiguous()}
            save_file(contents, draft / shards[-1])
    return keys, captions, shards


def _half(tokens: Tensor) -> Tensor:
    largest = tokens.abs().max()
    if not largest < FLOAT16_MAX:  # also true for NaN
        raise UserError(f"features reach {largest:g}, which float16 cannot hold: the encoder is broken")
    return tokens.to("cpu", torch.float16).contiguous()
