"""Contrastive losses over pairs of videos and captions, where one caption may be true of several videos.

Each rank scores its own rows against the columns of all ranks. The gather is differentiable and its backward sums the
gradients of all ranks, so averaging parameter gradients over ranks gives exactly the single-process gradient of the
joined batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

NO_CAPTION = -1
"""Padding of caption tables."""
MAX_SCALE = 100.0


class _GatherRows(torch.autograd.Function):
    """Concatenate the rows of all ranks; the backward sums over ranks and keeps the own rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.count = len(rows)
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].contiguous()
        dist.all_reduce(gradient)
        first = dist.get_rank() * ctx.count
        return gradient[first : first + ctx.count]


def gather_rows(rows: Tensor) -> Tensor:
    """Rows (B, ...) of all ranks in rank order (world * B, ...), differentiable; B must be equal on all ranks."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    return _GatherRows.apply(rows)


def positive_pairs(captions_of_video: Tensor, caption: Tensor) -> Tensor:
    """Which captions are true of which videos: bool (V, C).

    ``captions_of_video`` (V, M) holds the wording ids of all captions of each video, padded with ``NO_CAPTION``;
    ``caption`` (C,) the wording ids at hand. Equal wordings have equal ids, so neither another caption of the same
    video nor the same caption of another video is ever a negative.
    """
    return (captions_of_video[:, None, :] == caption[None, :, None]).any(dim=2)


def multi_positive_info_nce(scores: Tensor, positives: Tensor) -> Tensor:
    """Cross-entropy of each row's softmax against the uniform distribution over its positives, mean over rows.

    ``scores`` (Q, G) are scaled similarities, ``positives`` (Q, G) bool with at least one True per row. With one
    positive this is InfoNCE; with several it is the supervised contrastive loss (Khosla et al. 2020, L_out).
    """
    log_share = F.log_softmax(scores.float(), dim=1)
    return -((log_share * positives).sum(dim=1) / positives.sum(dim=1)).mean()


def pairwise_sigmoid(scores: Tensor, positives: Tensor) -> Tensor:
    """Binary cross-entropy of every pair, summed over columns, mean over rows (SigLIP, Zhai et al. 2023)."""
    sign = torch.where(positives, 1.0, -1.0)
    return -F.logsigmoid(sign * scores.float()).sum(dim=1).mean()


class _Contrastive(nn.Module):
    """A learnable inverse temperature, kept between 1 and 100 (the upper bound is CLIP's)."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor([math.log(scale)]))

    @property
    def scale(self) -> Tensor:
        """Inverse temperature (1,)."""
        return self.log_scale.clamp(0.0, math.log(MAX_SCALE)).exp()


class InfoNCE(_Contrastive):
    """Symmetric multi-positive InfoNCE of this rank's pairs against all ranks'."""

    def __init__(self) -> None:
        super().__init__(scale=1 / 0.07)

    def forward(self, video: Tensor, text: Tensor, captions_of_video: Tensor, caption: Tensor) -> Tensor:
        """Mean of both directions. ``video`` and ``text`` (B, E) are unit vectors, row i of both a true pair.

        For ``captions_of_video`` (B, M) and ``caption`` (B,) see :func:`positive_pairs`.
        """
        all_captions, all_caption = gather_rows(captions_of_video), gather_rows(caption)
        to_text, to_video = self.scale * video @ gather_rows(text).T, self.scale * text @ gather_rows(video).T
        return (
            multi_positive_info_nce(to_text, positive_pairs(captions_of_video, all_caption))
            + multi_positive_info_nce(to_video, positive_pairs(all_captions, caption).T)
        ) / 2


class PairwiseSigmoid(_Contrastive):
    """Sigmoid loss of this rank's videos against the captions of all ranks, with a learnable bias."""

    def __init__(self) -> None:
        super().__init__(scale=10.0)
        self.bias = nn.Parameter(torch.tensor([-10.0]))  # most pairs are negative: start from that (SigLIP)

    def forward(self, video: Tensor, text: Tensor, captions_of_video: Tensor, caption: Tensor) -> Tensor:
        """Arguments as for :class:`InfoNCE`."""
        scores = self.scale * video @ gather_rows(text).T + self.bias
        return pairwise_sigmoid(scores, positive_pairs(captions_of_video, gather_rows(caption)))


LOSSES: dict[str, Callable[[], _Contrastive]] = {"info_nce": InfoNCE, "sigmoid": PairwiseSigmoid}
"""Losses by their name in configurations."""
