"""What all probes share: the held-out part of train, pooling over space, and standardisation with train statistics.

Token features have shape (N, T', S, D): clips, time steps, tokens of one time step, channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmjepa.errors import UserError
from mmjepa.frozen.whitening import FLOOR, token_moments, whitening

_HOLD_OUT_EVERY = 5
_CHUNK = 256  # clips at a time


def held_out_split(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Indices (fit, held out) of a split of labels (N,): each fifth of the clips, shuffled and sorted by class.

    Hyper-parameters are chosen on the held-out part of train, never on test.
    """
    if len(labels) < _HOLD_OUT_EVERY:
        raise UserError(f"{len(labels)} training clips are too few to hold out one in {_HOLD_OUT_EVERY}")
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = shuffled[labels.cpu()[shuffled].argsort(stable=True)]
    held_out = torch.arange(len(labels)) % _HOLD_OUT_EVERY == _HOLD_OUT_EVERY // 2
    return by_class[~held_out], by_class[held_out]


@dataclass(frozen=True)
class Standardiser:
    """Subtracts ``mean`` and divides by ``scale``; both broadcast over features (N, ...)."""

    mean: Tensor
    scale: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        return (features.float() - self.mean) / self.scale


@dataclass(frozen=True)
class Whitener:
    """Subtracts ``mean`` (T', S, D) and maps channels by ``matrix`` (D, D)."""

    mean: Tensor
    matrix: Tensor

    def __call__(self, tokens: Tensor) -> Tensor:
        return (tokens.float() - self.mean) @ self.matrix


@dataclass(frozen=True)
class TokenMoments:
    """Mean per position (T', S, D) and covariance (D, D) of train tokens (:func:`token_moments`)."""

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, tokens: Tensor) -> TokenMoments:
        """Of tokens (N, T', S, D)."""
        return cls(*token_moments(tokens.split(_CHUNK)))

    def whitener(self, shrinkage: float | None) -> Whitener:
        """What takes the means off and whitens (see :func:`whitening`; None: scales channels alone)."""
        return Whitener(self.mean.float(), whitening(self.mean, self.covariance, shrinkage).float())


def pooled_standardiser(pooled: Tensor) -> Standardiser:
    """Mean and scale per feature of pooled train features (N, F)."""
    return Standardiser(pooled.double().mean(0).float(), _scale(pooled.double().std(0, correction=0)).float())


def pool_over_space(tokens: Tensor) -> Tensor:
    """Mean over the tokens of a time step, time steps side by side: (N, T', S, D) -> (N, T' * D), float32.

    Time is kept, so that the order of events stays visible to probes without positions.
    """
    return tokens.mean(dim=2, dtype=torch.float32).flatten(1)


def _scale(deviation: Tensor) -> Tensor:
    """What features are divided by: those without deviation become 0."""
    return torch.where(deviation > deviation.max() * FLOOR, deviation, torch.inf)
