"""Linear probe: ridge regression on +-1 class targets, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmjepa.evaluation.probes.features import Standardiser, held_out_split, pool_over_space, pooled_standardiser

# Ridge penalty per feature: means the same at every width. Strongest first, so that ties choose the stronger.
PENALTIES = tuple(10.0**exponent for exponent in (3, 2, 1, 0, -1, -2, -3, -4))


class LinearProbe:
    """Ridge classifier on features pooled over space (N, T' * D), standardised per feature.

    One-against-rest least squares needs no learning rate and no epochs, so an unfit optimiser cannot be mistaken for
    a poor encoder. The penalty is chosen on a held-out part of train; then the probe is fitted on all of train.
    """

    def __init__(self, classes: int, seed: int) -> None:
        self.classes = classes
        self.seed = seed
        self.chosen: dict[str, Any] = {}
        self.train_accuracy = 0.0

    def fit(self, tokens: Tensor, labels: Tensor) -> LinearProbe:
        """Fits on train tokens (N, T', S, D) and labels (N,)."""
        pooled = pool_over_space(tokens)
        fit, held_out = held_out_split(labels, self.seed)
        part = _RidgePath.of(pooled[fit], labels[fit], self.classes)
        accuracy = [_share_equal(part.predict(pooled[held_out], penalty), labels[held_out]) for penalty in PENALTIES]
        best = max(range(len(PENALTIES)), key=accuracy.__getitem__)
        self.chosen = {"penalty": PENALTIES[best], "held_out_accuracy": accuracy[best]}
        self._path = _RidgePath.of(pooled, labels, self.classes)
        self.train_accuracy = _share_equal(self._path.predict(pooled, PENALTIES[best]), labels)
        return self

    def predict(self, tokens: Tensor) -> Tensor:
        """Predicted labels (N,) of tokens (N, T', S, D)."""
        return self._path.predict(pool_over_space(tokens), self.chosen["penalty"])


@dataclass(frozen=True)
class _RidgePath:
    """Ridge solutions for every penalty from one eigendecomposition.

    basis (F, R): directions of feature space; eigenvalues (R,) of the Gram matrix along them; targets (R, C): features
    times centred targets along them; intercept (C,).
    """

    standardise: Standardiser
    basis: Tensor
    eigenvalues: Tensor
    targets: Tensor
    intercept: Tensor

    @classmethod
    def of(cls, pooled: Tensor, labels: Tensor, classes: int) -> _RidgePath:
        standardise = pooled_standardiser(pooled)
        features = standardise(pooled).double()
        signs = torch.full((len(labels), classes), -1.0, dtype=torch.float64, device=pooled.device)
        signs[torch.arange(len(labels)), labels.to(pooled.device)] = 1.0
        intercept = signs.mean(0)
        # The smaller of the two Gram matrices: more features than clips is the usual case (dual form).
        if features.shape[1] > features.shape[0]:
            eigenvalues, left = torch.linalg.eigh(features @ features.T)
            kept = eigenvalues > eigenvalues[-1] * 1e-10
            eigenvalues = eigenvalues[kept]
            basis = features.T @ left[:, kept] / eigenvalues.sqrt()
        else:
            eigenvalues, basis = torch.linalg.eigh(features.T @ features)
        targets = (features @ basis).T @ (signs - intercept)
        return cls(standardise, basis, eigenvalues, targets, intercept)

    def predict(self, pooled: Tensor, penalty: float) -> Tensor:
        coordinates = self.standardise(pooled).double() @ self.basis
        scores = coordinates @ (self.targets / (self.eigenvalues + penalty * len(self.basis))[:, None]) + self.intercept
        return scores.argmax(dim=1)


def _share_equal(predicted: Tensor, labels: Tensor) -> float:
    return float((predicted == labels.to(predicted.device)).double().mean())
