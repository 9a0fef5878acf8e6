"""Parameters that ZeRO-3 has shared out over the ranks: which they are, their local pieces, and having them whole.

Everything here works as well on parameters that are whole on every rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn


def is_partitioned(parameter: nn.Parameter) -> bool:
    """Whether ZeRO-3 holds the parameter in pieces."""
    return hasattr(parameter, "ds_id")


def whole_shape(parameter: Tensor) -> list[int]:
    """Shape of the whole parameter."""
    return list(getattr(parameter, "ds_shape", parameter.shape))


def local_pieces(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """What this rank holds of each parameter: its piece, or all of it. Pieces of equal modules are cut alike."""
    return [_piece(parameter) if is_partitioned(parameter) else parameter.data for parameter in parameters]


def piece_of(whole: Tensor, parameter: nn.Parameter) -> Tensor:
    """This rank's flat piece of ``whole``, cut as the partitioned ``parameter`` is: padded to equal lengths."""
    length = _piece(parameter).numel()
    start = dist.get_rank() * length
    piece = whole.new_zeros(length)
    part = whole.flatten()[start : start + length]
    piece[: part.numel()] = part
    return piece


def _piece(parameter: nn.Parameter) -> Tensor:
    piece: Tensor = parameter.ds_tensor  # type: ignore[attr-defined]
    return piece


@contextmanager
def gathered(parameters: Sequence[nn.Parameter], write: bool = False) -> Iterator[None]:
    """Within, every parameter is whole on every rank; with ``write``, what rank 0 changes stays. Call on every rank."""
    pieces = [parameter for parameter in parameters if is_partitioned(parameter)]
    if not pieces:
        yield
        return
    import deepspeed  # choosing an accelerator at import is the launch module's business, not that of every importer

    with deepspeed.zero.GatheredParameters(pieces, modifier_rank=0 if write else None):
        yield


@torch.no_grad()
def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """As ``module.state_dict()``, of whole tensors. Parameters in pieces are gathered one by one and copied."""
    state = dict(module.state_dict())
    for name, parameter in module.named_parameters():
        if is_partitioned(parameter):
            with gathered([parameter]):
                state[name] = parameter.detach().clone()
    return state


@torch.no_grad()
def load_whole(module: nn.Module, name: str, value: Tensor) -> None:
    """Set one parameter or buffer of ``module`` from its whole value, which every rank has."""
    parameters = dict(module.named_parameters())
    if name not in parameters:
        dict(module.named_buffers())[name].copy_(value)
        return
    with gathered([parameters[name]], write=True):
        parameters[name].copy_(value)
