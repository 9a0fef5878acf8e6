"""Which way of computing attention is fastest at which length, on this CPU in bfloat16."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmjepa.errors import UserError
from mmjepa.models.attention import attend_in_blocks, attend_written_out

WAYS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "written_out": attend_written_out,
    "fused": F.scaled_dot_product_attention,
    "blocks": attend_in_blocks,
}
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


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
    clock = CLOCKS[config.clock]
    forward: dict[str, list[float]] = {name: [] for name in WAYS}
    both: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(config.repeats + 1):
        for name, attend in WAYS.items():
            start = clock()
            with torch.no_grad():
                attend(*leaves)
            between = clock()
            torch.autograd.grad(attend(*leaves), leaves, gradient)
            end = clock()
            if turn:
                forward[name].append(1e3 * (between - start))
                both[name].append(1e3 * (end - between))
    return [
        {
            "tokens": tokens,
            "way": name,
            "forward_ms": statistics.median(forward[name]),
            "forward_backward_ms": statistics.median(both[name]),
            "ratio_to_written_out": statistics.median(both[name]) / statistics.median(both["written_out"]),
        }
        for name in WAYS
    ]
