"""The EMA teacher: an fp32 copy of (a part of) the student that lives outside DeepSpeed."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class EmaTeacher(Generic[M]):
    """Moving average of a module's parameters, kept in fp32.

    In bf16 an average with momentum 0.996 or more does not move at all (the step is below half a unit in the last
    place), so the copy is fp32 whatever the student computes in. It is deliberately not an ``nn.Module``: assigned to
    a task it is not registered there, so neither the optimiser nor ZeRO's partitioning ever sees it. Make it before
    the engine is built, from a student that is equal on every rank; equal updates then keep it equal.
    """

    def __init__(self, student: M) -> None:
        self.module: M = copy.deepcopy(student).float().eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, student: nn.Module, momentum: float) -> None:
        """teacher <- momentum * teacher + (1 - momentum) * student. Buffers are copied. Call on every rank."""
        live = list(student.parameters())
        with gathered(live):
            torch._foreach_lerp_(list(self.module.parameters()), [p.float() for p in live], 1.0 - momentum)
        for kept, fresh in zip(self.module.buffers(), student.buffers(), strict=True):
            kept.copy_(fresh)

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor of the copy by name."""
        return dict(self.module.state_dict())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore; names and shapes must match."""
        self.module.load_state_dict(state)


@contextmanager
def gathered(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Within, every parameter is whole on every rank: a no-op unless ZeRO stage 3 has partitioned them."""
    if not any(hasattr(parameter, "ds_id") for parameter in parameters):
        yield
        return
    import deepspeed  # choosing an accelerator at import is the launch module's business, not that of every importer

    with deepspeed.zero.GatheredParameters(parameters, modifier_rank=None):
        yield
