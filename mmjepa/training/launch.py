"""Processes: the same program runs alone, under ``deepspeed``, under ``torchrun``, on GPUs and on CPU ranks."""

from __future__ import annotations

import itertools
import logging
import os
import random
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from mmjepa.errors import UserError
from mmjepa.training.config import GATHERED_AT_MOST, DeepSpeedConfig, OptimizerConfig, TrainingConfig
from mmjepa.training.task import Layout, Task

LONGEST_WAIT = timedelta(days=7)
_first_rank_turns = itertools.count()


@contextmanager
def processes(accumulation: int) -> Iterator[Layout]:
    """Join the other ranks (or be the only one), and leave them again in good order.

    A group that the caller has already joined this way is used and left alone: DeepSpeed keeps references to the first
    group of a process, so several trainings in one process must share it.
    """
    if dist.is_initialized():
        yield Layout(dist.get_rank(), dist.get_world_size(), accumulation)
        return
    environment = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    if "MASTER_PORT" not in os.environ:
        environment["MASTER_PORT"] = str(_free_port())
    if not torch.cuda.is_available():
        environment["DS_ACCELERATOR"] = "cpu"
    for name, value in environment.items():
        os.environ.setdefault(name, value)  # with any of them missing DeepSpeed looks for MPI
    _quieten()
    import deepspeed  # reads DS_ACCELERATOR while it is imported
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    if accelerator.device_name() == "cpu":
        # Otherwise DeepSpeed compiles a shared-memory collective at every first start, and fails without a compiler.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    else:
        accelerator.set_device(int(os.environ["LOCAL_RANK"]))
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)
    try:
        yield Layout(dist.get_rank(), dist.get_world_size(), accumulation)
    except UserError as error:
        error.first = _is_first("user error")
        raise
    finally:
        dist.destroy_process_group()


def on_first_rank(action: Callable[[], object]) -> None:
    """Do ``action`` on rank 0 while the others wait, for hours if need be (a collective would give up after minutes).

    If it fails, all fail: a UserError is raised on every rank. Every rank must come here.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        action()
        return
    store, key = _store(), f"mmjepa first rank {next(_first_rank_turns)}"
    if dist.get_rank() == 0:
        refusal = "what rank 0 had to do ended with an error"
        try:
            action()
            refusal = ""
        except UserError as error:
            refusal = str(error)
        finally:
            store.set(key, refusal)
    else:
        store.wait([key], LONGEST_WAIT)
        refusal = store.get(key).decode()
    if refusal:
        raise UserError(refusal)


def device() -> torch.device:
    """The device that this rank computes on."""
    from deepspeed.accelerator import get_accelerator

    return torch.device(get_accelerator().current_device_name())


def deepspeed_engine(task: Task, config: TrainingConfig, layout: Layout) -> Any:
    """Wrap ``task`` into a DeepSpeed engine with AdamW. Parameters stay fp32 (see :meth:`Task.forward`).

    torch's own fused AdamW, because DeepSpeed's are compiled at first use and give the same result.
    """
    import deepspeed

    stage = config.deepspeed.stage_on(layout.world)
    engine, *_ = deepspeed.initialize(
        model=task,
        optimizer=_adamw(task, config.optimizer),
        dist_init_required=False,
        config={
            "train_batch_size": config.batch_size,
            "train_micro_batch_size_per_gpu": config.batch_size // (layout.world * layout.accumulation),
            "gradient_accumulation_steps": layout.accumulation,
            # At stage 0 the engine clips by itself, in the same pass that measures the norm: DeepSpeed would not
            # report it there.
            "gradient_clipping": (config.optimizer.max_grad_norm or 0.0) if stage else 0.0,  # 0: none
            "zero_optimization": _zero(config.deepspeed, stage),
        },
    )
    return engine


def partition_frozen(module: nn.Module, settings: DeepSpeedConfig) -> None:
    """Share the parameters of a module that is not trained out over the ranks, as ZeRO-3 does with those of the task.

    Its forward passes then gather them. None is kept whole beside its pieces: who changes the pieces changes the
    parameter. Call on every rank.
    """
    import deepspeed

    config = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": _zero(settings, 3)}
    deepspeed.initialize(model=module, dist_init_required=False, config=config)


def _zero(settings: DeepSpeedConfig, stage: int) -> dict[str, Any]:
    return {
        "stage": stage,
        "overlap_comm": settings.overlap_comm,
        "reduce_bucket_size": settings.reduce_bucket_size,
        "allgather_bucket_size": settings.allgather_bucket_size,
        "stage3_max_live_parameters": GATHERED_AT_MOST,
        "stage3_max_reuse_distance": GATHERED_AT_MOST,
        # What is kept whole for good is gathered one by one after every update; what is not, many in one collective.
        "stage3_param_persistence_threshold": 0,
        # It would replace torch.nn.functional.linear for the whole process, by one that rounds twice and takes longer,
        # and keeps no bfloat16 copies of weights for the backward pass: those are half of what is gathered anyway.
        "memory_efficient_linear": False,
    }


def seed_everything(*parts: int) -> None:
    """Seed every global generator from a tuple of integers, e.g. (seed, step, rank)."""
    value = int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)


def _adamw(task: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    assert isinstance(task, Task)
    groups = task.parameter_groups(config.weight_decay)
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)


def _store() -> Any:
    """What the ranks share without a collective: a table of names and values."""
    return dist.distributed_c10d._get_default_store()


def _is_first(event: str) -> bool:
    """Whether no other rank has asked this about ``event`` before; False too if the rank that keeps count has gone."""
    try:
        return bool(_store().add(event, 1) == 1)
    except dist.DistError:
        return False


def _quieten() -> None:
    """Keep DeepSpeed's set-up chatter out of the log; its errors still come through."""
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    os.environ.setdefault("DS_LOG_LEVEL", "error")
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed|deepspeed")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
