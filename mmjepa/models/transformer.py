"""Pre-norm transformer blocks with rotary positions: the one trunk of encoder and predictor."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmjepa.models.attention import attend
from mmjepa.models.remade import remade
from mmjepa.models.rope import rotate

NORM_EPS = 1e-6


class Attention(nn.Module):
    """Full bidirectional self-attention; queries and keys are rotated by their 3-D position."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, qkv: Tensor, rotary: Tensor) -> Tensor:
        """Queries, keys and values (B, tokens, 3 * width) of ``self.qkv`` -> (B, tokens, width)"""
        parts = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # 3, B, heads, tokens, head_dim
        query, key = rotate(parts[:2], rotary)
        # The copy of the values lets go of all of ``qkv``: rotation needs none of it for its backward pass.
        mixed = attend(query, key, parts[2].contiguous())
        return F.linear(mixed.transpose(1, 2).flatten(-2), self.proj.weight, self.proj.bias)


class Block(nn.Module):
    """Attention and MLP, each behind a LayerNorm and added to the residual stream.

    For the backward pass a block keeps its two residual streams, rotated queries and keys, values, the attention's
    output, and the hidden layer before its activation; what norms and activation give is made again (``keep``: is kept
    too). With ``hidden_again`` the hidden layer is made again as well, for one matrix product of the four in a block's
    layers. Its layers hold parameters and are not called: so ZeRO-3 gathers them for the whole block, forward and
    backward, where norms are computed again.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor, rotary: Tensor, keep: bool = False, hidden_again: bool = False) -> Tensor:
        """(B, tokens, width) -> (B, tokens, width)"""
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        qkv = _after(partial(_normalised, self.norm1, x, dtype), self.attention.qkv, keep)
        x = x + self.attention.forward(qkv, rotary)
        if hidden_again:
            return x + _made_again(self._expand, x, dtype, keep=True)
        return x + self._expand(x, dtype, keep)

    def _expand(self, x: Tensor, dtype: torch.dtype, keep: bool) -> Tensor:
        """Norm and MLP."""
        enter, _, leave = self.mlp
        hidden = _after(partial(_normalised, self.norm2, x, dtype), enter, keep)
        return _after(partial(F.gelu, hidden), leave, keep)


def _after(make: Callable[[], Tensor], linear: nn.Module, keep: bool) -> Tensor:
    """The linear layer of what ``make`` gives, which is not kept."""
    entering = make()
    with nullcontext() if keep else remade(entering, make):
        return F.linear(entering, linear.weight, linear.bias)  # type: ignore[arg-type]


def _made_again(layers: Callable[..., Tensor], *inputs: Any, **options: Any) -> Tensor:
    """What ``layers`` give, of which only the inputs are kept. Blocks draw no random numbers that could differ."""
    again: Tensor = checkpoint(layers, *inputs, use_reentrant=False, preserve_rng_state=False, **options)
    return again


def _normalised(norm: nn.LayerNorm, x: Tensor, dtype: torch.dtype) -> Tensor:
    """LayerNorm of the residual stream, in the dtype in which matrices are multiplied."""
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps).to(dtype)


class Trunk(nn.Module):
    """A stack of blocks that can also hand out the residual stream after chosen blocks.

    ``recompute``: what the backward pass makes again instead of keeping it (:class:`ModelConfig`).
    """

    def __init__(self, width: int, depth: int, heads: int, mlp_ratio: float, recompute: str = "nothing") -> None:
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
            again = self.recompute if torch.is_grad_enabled() else "nothing"
            if again == "blocks":
                # Checkpointing forgets all that is kept inside, but not what making it again would start from.
                x = _made_again(block, x, rotary, keep=True)
            else:
                x = block(x, rotary, hidden_again=again == "hidden")
            if number in taps:
                tapped.append(x)
        return tapped


def initialise(module: nn.Module) -> None:
    """Truncated normal (std 0.02, cut at +-2) weights and zero biases for linear layers; unit LayerNorms."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
