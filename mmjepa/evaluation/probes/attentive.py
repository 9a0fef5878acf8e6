"""Attentive probe: one learned query attends to all tokens of a clip, then an MLP and a linear classifier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmjepa.evaluation.probes.features import TokenMoments, Whitener, held_out_split
from mmjepa.precision import bf16_is_fast

HEADS = 8
WIDTH = 128  # of the block; the same for every encoder, so that wide encoders do not get a larger probe
BATCH = 64
EPOCHS = 20
MIN_STEPS = 200  # small training sets get more epochs
WARM_UP = 0.1  # share of the steps
_CHUNK = 256  # clips per forward pass without gradient


@dataclass(frozen=True)
class Setting:
    """How tokens are prepared (:func:`whitening`) and the block is fitted; held-out train chooses one of ``GRID``."""

    shrinkage: float | None
    learning_rate: float
    weight_decay: float


# In trained encoders a few directions hold most of the variance between clips (the ground, textures), and what a label
# is about may lie in the others: a block on tokens scaled per channel learns the large ones by heart before it finds
# those, and sat at chance on tokens of which a whitened one read a quarter of 48 motions. Untrained networks lose by
# whitening, so it is a choice. The rates are high for AdamW because the block is shallow and few steps are taken. Ties
# choose the earlier one.
GRID = (
    Setting(1e-4, 1e-2, 0.05),
    Setting(1e-4, 3e-2, 0.3),
    Setting(None, 1e-2, 0.05),
    Setting(None, 3e-2, 0.3),
)


class AttentiveBlock(nn.Module):
    """Cross-attention of one learned query over whitened tokens (B, T', S, D), MLP with residual, classifier.

    A learned embedding of time step and place is added to the tokens, because attention is blind to order. Without it
    only encoders that write positions into their tokens could be read for the order of events: features without them
    (raw patches, rotary encoders) would lose for the probe's reason and not for their own. It starts at about the
    tokens' own size: started near zero, order was memorised from the contents and not learned (measured at one
    learning rate on a planted order of two tokens, chance 0.5: 0.60 from a start of 0.02, 0.88 from this one, with
    train at 1.0 both times).

    With a single query, keys and values need not be computed per token: the query's product with the key matrix is one
    learned vector per head, and the value matrix can be applied after the weighted mean. Same function, a small
    fraction of the work.
    """

    def __init__(self, steps: int, places: int, channels: int, classes: int) -> None:
        super().__init__()
        self.time = nn.Parameter(torch.randn(steps, 1, channels) * 0.5)
        self.place = nn.Parameter(torch.randn(1, places, channels) * 0.5)
        self.key = nn.Parameter(torch.randn(channels, HEADS) / math.sqrt(channels))
        self.value = nn.Parameter(torch.randn(HEADS, channels, WIDTH // HEADS) / math.sqrt(channels))
        self.out = nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
        )
        self.classify = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, classes))

    def forward(self, tokens: Tensor) -> Tensor:
        """Whitened tokens (B, T', S, D), float32 or bfloat16 -> class scores (B, classes), float32."""
        flat = tokens.flatten(1, 2)  # (B, L, D)
        if not bf16_is_fast(flat.device):
            flat = flat.float()
        position = (self.time + self.place).flatten(0, 1)  # (L, D)
        scores = (flat @ self.key.to(flat.dtype)).float() + position @ self.key  # (B, L, heads)
        attention = scores.softmax(dim=1).transpose(1, 2)
        pooled = (attention.to(flat.dtype) @ flat).float() + attention @ position  # (B, heads, D)
        read = self.out(torch.einsum("bhd,hdw->bhw", pooled, self.value).flatten(1))
        return self.classify(read + self.mlp(read))


class AttentiveProbe:
    """Chooses one of ``grid`` on a held-out part of train, refits on all of train.

    AdamW with linear warm-up and cosine decay to 0, cross-entropy, ``EPOCHS`` passes; reproducible from ``seed``.
    Computes on the device of the tokens.
    """

    def __init__(self, classes: int, seed: int, grid: Sequence[Setting] = GRID) -> None:
        self.classes = classes
        self.seed = seed
        self.grid = grid
        self.chosen: dict[str, Any] = {}
        self.train_accuracy = 0.0

    def fit(self, tokens: Tensor, labels: Tensor) -> AttentiveProbe:
        """Fits on train tokens (N, T', S, D) and labels (N,)."""
        labels = labels.to(tokens.device)
        moments = TokenMoments.of(tokens)
        fit, held_out = held_out_split(labels, self.seed)
        accuracy: dict[Setting, float] = {}
        for shrinkage in dict.fromkeys(setting.shrinkage for setting in self.grid):
            ready = _whitened(tokens, moments.whitener(shrinkage))
            for setting in self.grid:
                if setting.shrinkage == shrinkage:
                    block = self._train(ready, labels, fit, setting)
                    accuracy[setting] = _accuracy(block, ready[held_out], labels[held_out])
        del ready  # as large as the tokens
        best = max(self.grid, key=accuracy.__getitem__)
        self._whiten = moments.whitener(best.shrinkage)
        ready = _whitened(tokens, self._whiten)
        self._block = self._train(ready, labels, torch.arange(len(labels)), best)
        self.train_accuracy = _accuracy(self._block, ready, labels)
        self.chosen = {**asdict(best), "held_out_accuracy": accuracy[best]}
        return self

    def predict(self, tokens: Tensor) -> Tensor:
        """Predicted labels (N,) of tokens (N, T', S, D)."""
        chunks = (_whitened(chunk, self._whiten) for chunk in tokens.split(_CHUNK))
        return torch.cat([_predicted(self._block, chunk) for chunk in chunks])

    def _train(self, tokens: Tensor, labels: Tensor, rows: Tensor, setting: Setting) -> AttentiveBlock:
        """A block fitted to the clips ``rows`` of tokens (N, T', S, D) and labels (N,)."""
        time, places, channels = tokens.shape[1:]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            block = AttentiveBlock(time, places, channels, self.classes).to(tokens.device)
        optimizer = torch.optim.AdamW(
            block.parameters(), lr=setting.learning_rate, weight_decay=setting.weight_decay, fused=True
        )
        batches = max(1, len(rows) // BATCH)
        steps = max(MIN_STEPS, EPOCHS * batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate_factor(step, steps))
        generator = torch.Generator().manual_seed(self.seed)
        order: list[Tensor] = []
        for _ in range(steps):
            order = order or list(rows[torch.randperm(len(rows), generator=generator)[: batches * BATCH]].split(BATCH))
            index = order.pop().to(tokens.device)
            loss = cross_entropy(block(tokens[index]), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return block


def _rate_factor(step: int, steps: int) -> float:
    """Linear warm-up over ``WARM_UP`` of the steps, then cosine to 0."""
    warm_up = WARM_UP * steps
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))


def _whitened(tokens: Tensor, whiten: Whitener) -> Tensor:
    """bfloat16: after whitening, values are of order one, and it halves memory and, in hardware, time."""
    ready = torch.empty(tokens.shape, dtype=torch.bfloat16, device=tokens.device)
    for start in range(0, len(tokens), _CHUNK):
        ready[start : start + _CHUNK] = whiten(tokens[start : start + _CHUNK])
    return ready


@torch.no_grad()
def _predicted(block: AttentiveBlock, tokens: Tensor) -> Tensor:
    return torch.cat([block(chunk).argmax(dim=1) for chunk in tokens.split(_CHUNK)])


def _accuracy(block: AttentiveBlock, tokens: Tensor, labels: Tensor) -> float:
    return float((_predicted(block, tokens) == labels).double().mean())
