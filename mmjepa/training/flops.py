"""How much arithmetic a step holds, and how much the device could do."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

PEAK_SIZE = {"cpu": 1024, "cuda": 8192}
"""Large enough that starting the product takes no time beside it."""
PEAK_REPEATS = 5
BACKWARD = 2.0
"""A backward pass costs twice its forward pass: one product for the input's gradient, one for the weight's."""


def trunk_flops(tokens: float, width: int, depth: int, mlp_ratio: float = 4.0) -> float:
    """Forward FLOPs of ``depth`` transformer blocks on one sequence of ``tokens``: projections, MLP, attention."""
    linear = 2.0 * tokens * width * width * (4.0 + 2.0 * mlp_ratio)
    attention = 4.0 * tokens * tokens * width
    return depth * (linear + attention)


def flop_counter() -> FlopCounterMode:
    """A context in which torch counts FLOPs of matrix products, those of the CPU's fused attention included.

    Torch's own list lacks the latter.
    """

    def forward(query: Any, key: Any, value: Any, *rest: Any, **options: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    def backward(gradient: Any, query: Any, key: Any, value: Any, *rest: Any, **options: Any) -> int:
        return int(sdpa_backward_flop_count(gradient, query, key, value))

    aten = torch.ops.aten
    mapping = {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    return FlopCounterMode(display=False, custom_mapping=mapping)


def measured_peak(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of a square matrix product in ``dtype`` on ``device``: the best of a few, after a warm-up."""
    size = PEAK_SIZE[device.type]
    a = torch.randn(size, size, device=device, dtype=dtype)
    b = torch.randn(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(PEAK_REPEATS + 1):
        synchronise(device)
        start = time.perf_counter()
        a @ b
        synchronise(device)
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best


def synchronise(device: torch.device) -> None:
    """Wait until ``device`` has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
