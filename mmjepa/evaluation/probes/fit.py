"""One call from frozen features to per-clip correctness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mmjepa.errors import UserError
from mmjepa.evaluation.probes.attentive import AttentiveProbe
from mmjepa.evaluation.probes.knn import KNNProbe
from mmjepa.evaluation.probes.linear import LinearProbe


class Probe(Protocol):
    """A classifier of frozen tokens (N, T', S, D); ``fit`` chooses its hyper-parameters without seeing test."""

    chosen: dict[str, Any]
    train_accuracy: float

    def fit(self, tokens: Tensor, labels: Tensor) -> Probe:
        """Fits on train tokens and labels (N,)."""

    def predict(self, tokens: Tensor) -> Tensor:
        """Predicted labels (N,)."""


PROBES: dict[str, Callable[[int, int], Probe]] = {"attentive": AttentiveProbe, "linear": LinearProbe, "knn": KNNProbe}


@dataclass(frozen=True)
class ProbeResult:
    """What a probe says of a test set.

    probe: its name; predicted and correct: (N,) per test clip, in order, ``correct`` as 0.0 or 1.0 for the bootstrap;
    chosen: hyper-parameters and the held-out accuracy that chose them; train_accuracy: on the clips it was fitted on
    (kNN: each left out in turn); train, classes: numbers of clips and classes.
    """

    probe: str
    predicted: np.ndarray
    correct: np.ndarray
    chosen: dict[str, Any]
    train_accuracy: float
    train: int
    classes: int

    @property
    def top1(self) -> float:
        """Share of test clips classified correctly."""
        return float(self.correct.mean())


def make_probe(name: str, classes: int, seed: int) -> Probe:
    """An unfitted probe: ``attentive``, ``linear`` or ``knn``. Fit it once to predict under many dropout conditions."""
    if name not in PROBES:
        raise UserError(f"unknown probe '{name}': choose from {', '.join(PROBES)}")
    return PROBES[name](classes, seed)


def fit_probe(
    name: str,
    train_tokens: Tensor,
    train_labels: Tensor,
    test_tokens: Tensor,
    test_labels: Tensor,
    classes: int,
    seed: int,
) -> ProbeResult:
    """Fits a probe on train and evaluates it on test.

    tokens: (N, T', S, D), any float type; labels: (N,) integers in [0, classes). Raises UserError on an unknown probe,
    ValueError on tokens that are not finite, sizes that do not fit, and labels out of range.
    """
    probe = make_probe(name, classes, seed)
    _check("train", train_tokens, train_labels, classes)
    _check("test", test_tokens, test_labels, classes)
    if train_tokens.shape[1:] != test_tokens.shape[1:]:
        raise ValueError(f"train tokens {tuple(train_tokens.shape)} and test tokens {tuple(test_tokens.shape)} differ")
    predicted = probe.fit(train_tokens, train_labels).predict(test_tokens).cpu().numpy()
    correct = (predicted == test_labels.cpu().numpy()).astype(np.float64)
    return ProbeResult(name, predicted, correct, probe.chosen, probe.train_accuracy, len(train_labels), classes)


def majority_row(train_labels: Tensor, test_labels: Tensor, classes: int) -> ProbeResult:
    """Always the most frequent class of train (the lowest on a tie): the floor that every probe has to leave."""
    counts = torch.bincount(train_labels, minlength=classes)
    majority = int(counts.argmax())
    correct = (test_labels == majority).double().cpu().numpy()
    share = float(counts[majority]) / len(train_labels)
    predicted = np.full(len(test_labels), majority)
    return ProbeResult("majority", predicted, correct, {}, share, len(train_labels), classes)


def _check(side: str, tokens: Tensor, labels: Tensor, classes: int) -> None:
    if tokens.ndim != 4 or len(tokens) != len(labels) or len(labels) == 0:
        raise ValueError(
            f"{side} tokens {tuple(tokens.shape)} must be (N, T', S, D) with a label each, got {len(labels)}"
        )
    if not all(bool(chunk.isfinite().all()) for chunk in tokens.split(256)):
        raise ValueError(f"{side} tokens are not finite")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise ValueError(f"{side} labels must lie in [0, {classes}), got {int(labels.min())} to {int(labels.max())}")
