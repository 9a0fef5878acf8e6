"""How much arithmetic a step holds, and how much the device could do."""

from __future__ import annotations

import time

import torch

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
