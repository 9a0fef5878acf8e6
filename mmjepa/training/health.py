"""Collapse health: is there still something in the representation that tells clips apart?

A falling JEPA loss does not say so, since both sides of it move. These measures on a fixed batch of clips do.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mmjepa.training.config import HealthConfig

MAX_ROWS = 4096


@torch.no_grad()
def representation_health(tokens: Tensor) -> dict[str, float]:
    """Measures of tokens (B, N, D), one row of N tokens per clip.

    ``rankme``: effective rank of the tokens (exp of the entropy of their singular values; Garrido et al. 2023), at most
    D. ``channel_std``: standard deviation over all tokens, mean over channels. ``between_clip_share`` and
    ``positional_share``: shares of the total variance that are explained by the clip alone and by the token position
    alone; a representation can be rich and still hardly tell clips apart, most of its variance being positional.
    """
    tokens = tokens.double()
    centred = tokens - tokens.mean(dim=(0, 1))
    total = centred.square().mean(dim=(0, 1)).sum()
    floor = torch.finfo(torch.float32).tiny
    return {
        "rankme": rankme(tokens.flatten(0, 1)),
        "channel_std": float(tokens.flatten(0, 1).std(dim=0).mean()),
        "between_clip_share": float(centred.mean(dim=1).square().mean(dim=0).sum() / total.clamp(min=floor)),
        "positional_share": float(centred.mean(dim=0).square().mean(dim=0).sum() / total.clamp(min=floor)),
    }


def rankme(rows: Tensor) -> float:
    """Effective rank of a matrix (n, D); evenly spaced rows if there are very many."""
    stride = -(-len(rows) // MAX_ROWS)
    # Singular values from the Gram matrix in float64: far cheaper than an SVD for n >> D, and exact enough here.
    picked = rows[::stride].double()
    singular = torch.linalg.eigvalsh(picked.T @ picked).clamp(min=0).sqrt()
    share = singular / singular.sum().clamp(min=torch.finfo(torch.float32).tiny)
    return float(torch.exp(-torch.xlogy(share, share).sum()))


def alarms(measures: Mapping[str, float], width: int, config: HealthConfig) -> list[str]:
    """What is wrong, in plain words; nothing if every measure is above its floor."""
    found = []
    if measures["rankme"] < config.rankme_floor * width:
        found.append(
            f"collapse: the representation uses about {measures['rankme']:.1f} of {width} directions (RankMe); "
            "try a lower learning rate, a longer warm-up or a higher EMA momentum"
        )
    if measures["channel_std"] < config.channel_std_floor:
        found.append(f"collapse: channels hardly vary (standard deviation {measures['channel_std']:.3g})")
    if measures["between_clip_share"] < config.between_clip_floor:
        found.append(
            f"clips look alike: only {measures['between_clip_share']:.1%} of the variance tells clips apart, "
            f"{measures['positional_share']:.1%} is position"
        )
    return found
