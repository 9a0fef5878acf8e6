"""Activations that the backward pass makes again instead of keeping: those that cost next to nothing to make."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def remade(tensor: Tensor, make: Callable[[], Tensor]) -> AbstractContextManager[Any]:
    """Within, operations that save ``tensor`` (contiguous) for their backward pass save ``make`` in its place.

    ``make`` returns the same values, of the same dtype, from tensors that are kept anyway; it runs without gradient.
    Only what is saved changes: values and gradients are the same to the last bit. Compilers choose by themselves what
    to make again. What ``make`` starts from must not change in place between the two passes: nothing would notice.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return nullcontext()
    # A view shares the memory; a temporary cannot have it while the tensor lives, and it lives as long as this.
    memory = tensor.untyped_storage().data_ptr()

    def pack(saved: Tensor) -> Tensor | torch.Size:
        return saved.shape if saved.untyped_storage().data_ptr() == memory else saved

    def unpack(kept: Tensor | torch.Size) -> Tensor:
        return kept if isinstance(kept, Tensor) else make().view(kept)

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)
