"""Which way of computing attention is fastest at which length, on this CPU in bfloat16."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmjepa.errors import UserError
from mmjepa.models.attention import attend_in_blocks, attend_written_out
from mmjepa.training.timing import CLOCKS, take_turns

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]

WAYS: dict[str, Attention] = {
    "written_out": attend_written_out,
    "fused": F.scaled_dot_product_attention,
    "blocks": attend_in_blocks,
}


@dataclass
class AttentionBenchmarkConfig:
    """Lengths to measure, the other sizes, and the clock; ``out``: a .json file (null: print only).

    ``clock=processor`` counts the process's own time, which other work on the machine disturbs less: for one thread
    (OMP_NUM_THREADS=1), as waiting threads count too.
    """

    tokens: list[int] = field(default_factory=list)
    batch: int = 2
    heads: int = 6
    head_dim: int = 64
    repeats: int = 7
    clock: str = "wall"
    out: str | None = None

    def __post_init__(self) -> None:
        if not self.tokens or min(*self.tokens, self.batch, self.heads, self.head_dim, self.repeats) < 1:
            raise UserError("tokens must be a list, and it, batch, heads, head_dim and repeats at least 1")
        if self.clock not in CLOCKS:
            raise UserError(f"clock={self.clock} is not known ({', '.join(CLOCKS)})")


def measure_attention(config: AttentionBenchmarkConfig) -> list[dict[str, Any]]:
    """Median milliseconds by length and way, of the forward pass alone and with the backward pass.

    The ways take turns, so that other work on the machine hits all alike; the first turn is not counted.
    """
    return [row for tokens in config.tokens for row in _at_length(config, tokens)]


def _at_length(config: AttentionBenchmarkConfig, tokens: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    shape = (4, config.batch, config.heads, tokens, config.head_dim)
    *parts, gradient = torch.randn(shape, generator=generator).to(torch.bfloat16)
    leaves = [part.clone().requires_grad_() for part in parts]
    calls: dict[str, Callable[[], object]] = {}
    for name, attend in WAYS.items():
        calls[f"{name} forward"] = partial(_forward, attend, leaves)
        calls[name] = partial(_forward_backward, attend, leaves, gradient)
    times = take_turns(calls, 1, config.repeats, torch.device("cpu"), config.clock)
    medians = {name: 1e3 * statistics.median(seconds) for name, seconds in times.items()}
    return [
        {
            "tokens": tokens,
            "way": name,
            "forward_ms": medians[f"{name} forward"],
            "forward_backward_ms": medians[name],
            "ratio_to_written_out": medians[name] / medians["written_out"],
        }
        for name in WAYS
    ]


def _forward(attend: Attention, leaves: Sequence[Tensor]) -> None:
    with torch.no_grad():
        attend(*leaves)


def _forward_backward(attend: Attention, leaves: Sequence[Tensor], gradient: Tensor) -> None:
    torch.autograd.grad(attend(*leaves), leaves, gradient)
