"""The EMA teacher: an fp32 copy of (a part of) the student that lives outside DeepSpeed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from mmjepa.training.partitioned import load_whole, local_pieces, whole_state

M = TypeVar("M", bound=nn.Module)


class EmaTeacher(Generic[M]):
    """Moving average of a module's parameters, kept in fp32.

    In bf16 an average with momentum 0.996 or more does not move at all (the step is below half a unit in the last
    place), so the copy is fp32 whatever the student computes in. It is deliberately not an ``nn.Module``: assigned to
    a task it is not registered there, so neither the optimiser nor ZeRO's partitioning ever sees it. Make it before
    the engine is built, from a student that is equal on every rank; equal updates then keep it equal. Under ZeRO-3 the
    copy is shared out as the student is, and each rank averages its own pieces: nothing is gathered for an update.
    """

    def __init__(self, student: M) -> None:
        self.module: M = copy.deepcopy(student).float().eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, student: nn.Module, momentum: float) -> None:
        """teacher <- momentum * teacher + (1 - momentum) * student. Buffers are copied. Call on every rank."""
        kept, fresh = (local_pieces(list(module.parameters())) for module in (self.module, student))
        torch._foreach_lerp_(kept, [piece.float() for piece in fresh], 1.0 - momentum)
        for old, new in zip(self.module.buffers(), student.buffers(), strict=True):
            old.copy_(new)

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor of the copy by name, whole. Call on every rank."""
        return whole_state(self.module)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore from whole tensors; names and shapes must match. Call on every rank."""
        if set(state) != set(self.module.state_dict()):
            raise KeyError(f"not the tensors of this teacher: {sorted(set(state) ^ set(self.module.state_dict()))}")
        for name, value in state.items():
            load_whole(self.module, name, value)
