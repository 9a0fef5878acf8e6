"""Softmax attention, computed the way that is cheapest for the device, the precision and the length."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCKED_FROM = 512
"""Tokens from which on a CPU's bfloat16 attention goes through blocks: ``eval/benchmark_attention.py`` measures it."""
BLOCK_ROWS = 800
"""Most queries of a block. Its scores stay in the last cache; sizes from 400 to 1,600 differ by a few per cent."""


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention over (B, heads, tokens, head_dim), all of one dtype and one number of tokens.

    On CPUs in bfloat16 torch's fused kernel is slow, in its backward pass above all: there short sequences take
    :func:`attend_written_out` and long ones :func:`attend_in_blocks`. Everything else is the fused kernel's.
    """
    if query.device.type != "cpu" or query.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(query, key, value)
    # A compiler would unroll the loop over blocks for every length anew.
    if torch.compiler.is_compiling() or query.shape[-2] < BLOCKED_FROM:
        return attend_written_out(query, key, value)
    return attend_in_blocks(query, key, value)


def attend_written_out(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention as two batched matrix products; keeps (B, heads, tokens, tokens) for the backward pass."""
    scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-1, -2))
    return torch.matmul(torch.softmax(scores, dim=-1), value)


def attend_in_blocks(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of one head and one block of queries at a time: never holds more than two blocks of scores.

    The backward pass computes the probabilities again. Arithmetic is that of :func:`attend_written_out`, except that
    gradients of keys and values are summed over blocks in float32 (in float64 if that is the dtype).
    """
    attended: Tensor = _Blocked.apply(query, key, value)
    return attended


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scaled, key, value = (query * query.shape[-1] ** -0.5).contiguous(), key.contiguous(), value.contiguous()
        ctx.save_for_backward(scaled, key, value)
        out = torch.empty_like(scaled)
        blocks = _row_blocks(scaled.shape[-2])
        scores = scaled.new_empty(blocks[0].stop, scaled.shape[-2])
        for q, k, v, o in zip(*map(_heads, (scaled, key, value, out)), strict=True):
            for rows in blocks:
                torch.mm(_probabilities(q[rows], k, scores[: rows.stop - rows.start]), v, out=o[rows])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scaled, key, value = ctx.saved_tensors
        gradients = torch.empty_like(scaled), torch.empty_like(key), torch.empty_like(value)
        blocks = _row_blocks(scaled.shape[-2])
        scores = scaled.new_empty(2, blocks[0].stop, scaled.shape[-2])
        inputs = map(_heads, (scaled, key, value, gradient.contiguous(), *gradients))
        for q, k, v, g, dq, dk, dv in zip(*inputs, strict=True):
            sum_k, sum_v = _Sum(dk), _Sum(dv)
            for rows in blocks:
                p, ds = scores[:, : rows.stop - rows.start]
                _probabilities(q[rows], k, p)
                torch.mm(g[rows], v.t(), out=ds)
                sum_v.add_product(p.t(), g[rows])
                torch._softmax_backward_data(ds, p, -1, p.dtype, grad_input=ds)
                torch.mm(ds, k, out=dq[rows])
                sum_k.add_product(ds.t(), q[rows])
            sum_k.write()
            sum_v.write()
        return gradients[0].mul_(scaled.shape[-1] ** -0.5), gradients[1], gradients[2]


class _Sum:
    """Sum of matrix products over blocks, written into ``out`` (tokens, head_dim): a single product without detours."""

    def __init__(self, out: Tensor) -> None:
        self.out = out
        self.total: Tensor | None = None

    def add_product(self, a: Tensor, b: Tensor) -> None:
        if self.total is not None:  # ``out`` is free since its first product went into the total
            self.total += torch.mm(a, b, out=self.out)
        elif a.shape[1] == len(self.out):
            torch.mm(a, b, out=self.out)
        else:
            wide = torch.promote_types(self.out.dtype, torch.float32)
            self.total = torch.mm(a, b, out=self.out).to(wide, copy=True)

    def write(self) -> None:
        if self.total is not None:
            self.out.copy_(self.total)


def _probabilities(rows: Tensor, key: Tensor, out: Tensor) -> Tensor:
    """Softmax over keys (tokens, head_dim) for scaled queries (rows, head_dim), into ``out`` (rows, tokens)."""
    torch.mm(rows, key.t(), out=out)
    return torch.softmax(out, dim=-1, out=out)


def _heads(x: Tensor) -> Tensor:
    """Contiguous (B, heads, tokens, head_dim) as (B * heads, tokens, head_dim)."""
    return x.view(-1, *x.shape[-2:])


def _row_blocks(tokens: int) -> list[slice]:
    """Blocks of queries, of nearly equal length, the first none shorter than any other."""
    length = -(-tokens // -(-tokens // BLOCK_ROWS))
    return [slice(first, min(first + length, tokens)) for first in range(0, tokens, length)]
