"""Pre-norm transformer blocks with rotary positions: the one trunk of encoder and predictor."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmjepa.models.attention import attend
from mmjepa.models.rope import rotate

NORM_EPS = 1e-6


class Attention(nn.Module):
    """Full bidirectional self-attention; queries and keys are rotated by their 3-D position."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rotary: Tensor) -> Tensor:
        """(B, tokens, width) -> (B, tokens, width)"""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # 3, B, heads, tokens, head_dim
        query, key = rotate(qkv[:2], rotary)
        mixed = attend(query, key, qkv[2])
        return self.proj(mixed.transpose(1, 2).flatten(-2))


class Block(nn.Module):
    """Attention and MLP, each behind a LayerNorm and added to the residual stream."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor, rotary: Tensor) -> Tensor:
        """(B, tokens, width) -> (B, tokens, width)"""
        x = x + self.attention(self.norm1(x), rotary)
        return x + self.mlp(self.norm2(x))


class Trunk(nn.Module):
    """A stack of blocks that can also hand out the residual stream after chosen blocks."""

    def __init__(self, width: int, depth: int, heads: int, mlp_ratio: float, recompute: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio) for _ in range(depth))
        self.recompute = recompute
        self.apply(initialise)
        for number, block in enumerate(self.blocks, start=1):
            # Residual branches of later blocks start smaller, so that the stream's variance does not grow with depth.
            for layer in (block.attention.proj, block.mlp[2]):  # type: ignore[union-attr,index]
                layer.weight.data.div_(math.sqrt(2.0 * number))  # type: ignore[operator,union-attr]

    def forward(self, x: Tensor, rotary: Tensor, taps: tuple[int, ...]) -> list[Tensor]:
        """Residual stream (B, tokens, width) after each 0-based block index in ``taps``."""
        tapped = []
        for number, block in enumerate(self.blocks):
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, rotary, use_reentrant=False)
            else:
                x = block(x, rotary)
            if number in taps:
                tapped.append(x)
        return tapped


def initialise(module: nn.Module) -> None:
    """Truncated normal (std 0.02, cut at +-2) weights and zero biases for linear layers; unit LayerNorms."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
