"""AdamW's state by parameter, whole, whatever ZeRO stage and number of ranks hold it in pieces.

DeepSpeed's own checkpoints keep the pieces, and refuse to load them on another number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from mmjepa.training.partitioned import is_partitioned, piece_of

MOMENTS = ("exp_avg", "exp_avg_sq")


def allocate(engine: Any) -> None:
    """Give AdamW the zeros that it would make at its first update: now they can be read, and restored into."""
    for tensor in _updated(engine):
        state = _adamw(engine).state[tensor]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=tensor.device)
            for moment in MOMENTS:
                state[moment] = torch.zeros_like(tensor, requires_grad=False)
    if engine.zero_optimization_stage() in (1, 2):
        engine.optimizer._lazy_init_hp_params_optimizer_state()  # tells each parameter where its piece lies


def trained(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters that have optimiser state, by name."""
    return ((name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad)


def whole_moment(engine: Any, parameter: nn.Parameter, moment: str) -> Tensor:
    """``moment`` of ``parameter``, of its shape. A collective under ZeRO: call on every rank."""
    from deepspeed.utils import safe_get_full_optimizer_state

    if engine.zero_optimization():
        whole: Tensor = safe_get_full_optimizer_state(parameter, moment)
        return whole
    piece: Tensor = engine.optimizer.state[parameter][moment]
    return piece


def restore_moment(engine: Any, parameter: nn.Parameter, moment: str, whole: Tensor) -> None:
    """Set what this rank holds of ``moment``."""
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    if is_partitioned(parameter):  # the call for whole tensors fails on pieces that are padded
        safe_set_local_optimizer_state(parameter, piece_of(whole.to(parameter.device), parameter), moment)
    elif engine.zero_optimization():
        safe_set_full_optimizer_state(parameter, whole.to(parameter.device), moment)
    else:
        engine.optimizer.state[parameter][moment].copy_(whole)


def updates(engine: Any) -> int:
    """How many updates AdamW has made: its bias correction depends on it. Every parameter has had all of them."""
    (count,) = {int(_adamw(engine).state[tensor]["step"]) for tensor in _updated(engine)}
    return count


def restore_updates(engine: Any, count: int) -> None:
    """Set the number of updates, and let ZeRO take over the parameters that the module was given."""
    for tensor in _updated(engine):
        _adamw(engine).state[tensor]["step"].fill_(float(count))
    if engine.zero_optimization():
        engine.optimizer.refresh_fp32_params()


def _updated(engine: Any) -> list[Tensor]:
    """The tensors that AdamW updates: parameters, or this rank's flat pieces of them."""
    if engine.zero_optimization_stage() == 3:  # which takes them out of the groups between steps
        return list(engine.optimizer.fp32_partitioned_groups_flat)
    return [tensor for group in _adamw(engine).param_groups for tensor in group["params"]]


def _adamw(engine: Any) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = engine.optimizer.optimizer if engine.zero_optimization() else engine.optimizer
    return optimizer
