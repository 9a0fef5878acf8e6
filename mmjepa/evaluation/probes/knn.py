"""k-nearest-neighbour probe: reads what lies in the metric of the features, with nothing trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from mmjepa.evaluation.probes.features import held_out_split, pool_over_space, pooled_standardiser

NEIGHBOURS = (50, 20, 10, 5, 3, 1)
_TEMPERATURE = 0.07
_CHUNK = 1024


class KNNProbe:
    """Cosine neighbours on features pooled over space, standardised per feature; votes weighted by exp(cosine / 0.07).

    Weighted votes as in Wu et al. 2018 (arXiv 1805.01978, section 3.4). k is chosen on a held-out part of train, the
    larger one on a tie; then all of train are neighbours.
    """

    def __init__(self, classes: int, seed: int) -> None:
        self.classes = classes
        self.seed = seed
        self.chosen: dict[str, Any] = {}
        self.train_accuracy = 0.0

    def fit(self, tokens: Tensor, labels: Tensor) -> KNNProbe:
        """Takes train tokens (N, T', S, D) and labels (N,) as neighbours and chooses k."""
        pooled = pool_over_space(tokens)
        labels = labels.to(pooled.device)
        self._labels, self._standardise = labels, pooled_standardiser(pooled)
        self._neighbours = normalize(self._standardise(pooled), dim=1)
        fit, held_out = held_out_split(labels, self.seed)
        candidates = [k for k in NEIGHBOURS if k <= len(fit)]
        accuracy = []
        for k in candidates:
            votes = self._vote(self._neighbours[held_out], self._neighbours[fit], labels[fit], k)
            accuracy.append(float((votes == labels[held_out]).double().mean()))
        best = max(range(len(candidates)), key=accuracy.__getitem__)
        self.chosen = {"k": candidates[best], "held_out_accuracy": accuracy[best]}
        # Every clip is its own nearest neighbour, so train accuracy means leaving it out.
        others = self._vote(self._neighbours, self._neighbours, labels, candidates[best], exclude_self=True)
        self.train_accuracy = float((others == labels).double().mean())
        return self

    def predict(self, tokens: Tensor) -> Tensor:
        """Predicted labels (N,) of tokens (N, T', S, D)."""
        queries = normalize(self._standardise(pool_over_space(tokens)), dim=1)
        return self._vote(queries, self._neighbours, self._labels, int(self.chosen["k"]))

    def _vote(self, queries: Tensor, neighbours: Tensor, labels: Tensor, k: int, exclude_self: bool = False) -> Tensor:
        predicted = []
        for start in range(0, len(queries), _CHUNK):
            similarity = queries[start : start + _CHUNK] @ neighbours.T
            if exclude_self:
                rows = torch.arange(len(similarity), device=similarity.device)
                similarity[rows, start + rows] = -torch.inf
            nearest, index = similarity.topk(k, dim=1)
            weights = ((nearest - 1) / _TEMPERATURE).exp()
            votes = (one_hot(labels[index], self.classes) * weights[..., None]).sum(dim=1)
            predicted.append(votes.argmax(dim=1))
        return torch.cat(predicted)
