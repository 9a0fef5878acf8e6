"""Attention in blocks against the definition in float64, and the choice by length."""

from __future__ import annotations

import pytest
import torch
from test_networks import TINY
from torch import Tensor

from mmjepa.models import attention, build_video_jepa

SHAPE = (2, 3, 50, 8)


def definition(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention, one query after the other."""
    rows = []
    for row in range(query.shape[2]):
        logits = (key * query[:, :, row : row + 1]).sum(-1) / query.shape[-1] ** 0.5
        weights = logits.exp() / logits.exp().sum(-1, keepdim=True)
        rows.append((weights[..., None] * value).sum(-2))
    return torch.stack(rows, dim=2)


def inputs(dtype: torch.dtype, shape: tuple[int, ...] = SHAPE) -> list[Tensor]:
    """Query, key, value (laid out as a fused projection leaves them) and the output's gradient."""
    generator = torch.Generator().manual_seed(0)
    batch, heads, tokens, width = shape
    fused = torch.randn(batch, tokens, 4, heads, width, generator=generator).permute(2, 0, 3, 1, 4)
    return [
        part.to(torch.bfloat16).to(dtype) for part in fused * torch.tensor([2.0, 2.0, 1.0, 1.0]).view(4, 1, 1, 1, 1)
    ]


def with_gradients(attend: object, parts: list[Tensor]) -> list[Tensor]:
    """Output and the gradients of query, key and value, in float64."""
    leaves = [part.detach().requires_grad_() for part in parts[:3]]
    out = attend(*leaves)  # type: ignore[operator]
    return [one.double() for one in (out.detach(), *torch.autograd.grad(out, leaves, parts[3]))]


@pytest.mark.parametrize("block", [7, 25, 50, 64])
def test_blocks_give_the_definition_and_its_gradients(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(attention, "BLOCK_ROWS", block)
    exact = with_gradients(definition, inputs(torch.float64))
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        for found, expected in zip(with_gradients(attention.attend_in_blocks, inputs(dtype)), exact, strict=True):
            torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("block", [100, 400])
def test_blocks_in_bfloat16_err_no_more_than_the_written_out_products(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(attention, "BLOCK_ROWS", block)
    shape = (1, 4, 400, 32)
    exact = with_gradients(definition, inputs(torch.float64, shape))
    low = inputs(torch.bfloat16, shape)
    ours, theirs = (with_gradients(f, low) for f in (attention.attend_in_blocks, attention.attend_written_out))
    for found, written_out, expected in zip(ours, theirs, exact, strict=True):
        assert (found - expected).norm() <= 1.02 * (written_out - expected).norm()


def test_blocks_keep_no_scores_for_the_backward_pass() -> None:
    kept: list[Tensor] = []
    query, key, value, _ = (part.requires_grad_() for part in inputs(torch.float32, (2, 3, 400, 8)))
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        attention.attend_in_blocks(query, key, value)
    assert sum(tensor.numel() for tensor in kept) == 3 * query.numel()


def test_the_choice_by_length_changes_rounding_only(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = build_video_jepa(TINY)
    pixels = torch.randn(2, 3, 8, 64, 64)
    found = []
    for threshold in (65, 64):
        monkeypatch.setattr(attention, "BLOCKED_FROM", threshold)
        used = []
        blocks = attention.attend_in_blocks
        with monkeypatch.context() as watched:
            watched.setattr(attention, "attend_in_blocks", lambda *x, f=blocks, u=used: u.append(1) or f(*x))
            with torch.autocast("cpu", torch.bfloat16):
                tokens = model.encoder(pixels)
            assert bool(used) == (threshold == 64)
        model.zero_grad()
        tokens.square().mean().backward()
        found.append([tokens.detach(), *(p.grad for p in model.encoder.parameters() if p.grad is not None)])
    for short, long in zip(*found, strict=True):
        assert (short - long).norm() < 0.02 * long.norm() + 1e-6
