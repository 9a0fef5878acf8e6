"""Attentive pooling of frozen video tokens: a few learned queries over whitened, position-coded tokens."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mmjepa.errors import UserError
from mmjepa.frozen import Tokens
from mmjepa.frozen.whitening import token_moments, whitening


class TokenWhitening(nn.Module):
    """Statistics of training tokens: ``mean`` (T', S, D) of each grid position, and ``matrix`` (D, D) of channels.

    Most of the variance of self-supervised tokens says where a token lies, not what is there. The mean is therefore
    taken per position; a learned position embedding puts back what a readout wants to know about place. Of the rest
    most lies in a few directions, and a readout would learn these by heart before it finds the others (``shrinkage``:
    see :func:`whitening`). Whitened tokens are ``(tokens - mean) @ matrix``.
    """

    def __init__(self, steps: int, spatial: int, width: int, shrinkage: float | None) -> None:
        super().__init__()
        self.shrinkage = shrinkage
        self.register_buffer("mean", torch.zeros(steps, spatial, width))
        self.register_buffer("matrix", torch.eye(width))
        self.mean: Tensor
        self.matrix: Tensor

    @torch.no_grad()
    def fit(self, blocks: Iterable[Tokens]) -> None:
        """Take the statistics from training features in which no step is missing, in one pass."""
        mean, covariance = token_moments(block.tokens for block in blocks)
        self.mean.copy_(mean)
        self.matrix.copy_(whitening(mean, covariance, self.shrinkage))


class AttentivePooler(nn.Module):
    """Cross-attention of learned queries to tokens: (B, T', S, D) -> (B, queries * channels).

    Keys need no projection of their own: a learned query and a learned key projection only ever meet as their product,
    which is a learned vector in token space. So each head of each query is such a vector, and the tokens are pooled
    before the value projection: the function is that of multi-head cross-attention, at a cost that hardly depends on
    the number of tokens.

    ``token_dropout``: share of tokens that each clip loses while training. It keeps the head from learning a clip by
    heart from single tokens, and makes it used to incomplete clips.
    """

    def __init__(
        self,
        steps: int,
        spatial: int,
        width: int,
        queries: int,
        heads: int,
        channels: int,
        token_dropout: float = 0.0,
        shrinkage: float | None = None,
    ) -> None:
        super().__init__()
        self.token_dropout = token_dropout
        self.whitening = TokenWhitening(steps, spatial, width, shrinkage)
        self.position = nn.Parameter(torch.randn(steps, spatial, width) * 0.02)
        self.query = nn.Parameter(torch.randn(queries * heads, width))
        self.value = nn.Parameter(torch.randn(queries * heads, width, channels // heads) * width**-0.5)
        self.logit_scale = width**-0.5

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        """Tokens (B, T', S, D), of which the steps ``present`` (B, T') are attended to (at least one per clip)."""
        steps, spatial, width = self.position.shape
        if tokens.shape[1:] != (steps, spatial, width):
            found = "x".join(map(str, tokens.shape[1:]))
            raise UserError(f"the head was fitted on clips of {steps}x{spatial}x{width} tokens, these have {found}")
        with torch.autocast(tokens.device.type, enabled=False):  # in bf16 large directions would drown the small ones
            return self._pool((tokens.float() - self.whitening.mean).flatten(1, 2), present)

    def _pool(self, centred: Tensor, present: Tensor) -> Tensor:
        """Tokens (B, N, D) without their means -> (B, queries * channels)."""
        matrix, position = self.whitening.matrix, self.position.flatten(0, 1)
        # Keys and values are centred @ matrix + position; the matrix is applied to the few queries and sums instead.
        logits = (centred @ (matrix @ self.query.T) + position @ self.query.T) * self.logit_scale  # (B, N, heads)
        spatial = self.position.shape[1]
        absent = ~present.repeat_interleave(spatial, dim=1)
        if self.training and self.token_dropout:
            dropped = torch.rand_like(logits[:, :, 0]) < self.token_dropout
            keeps_none = (absent | dropped).all(dim=1, keepdim=True)  # such a clip keeps all that it has
            absent = absent | (dropped & ~keeps_none)
        weights = logits.masked_fill(absent[:, :, None], -torch.inf).softmax(dim=1)
        weights = weights.transpose(1, 2)
        pooled = weights @ centred @ matrix + weights @ position  # (B, heads, D)
        return torch.einsum("bhd,hdc->bhc", pooled, self.value).flatten(1)
