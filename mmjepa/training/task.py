"""What the engine trains: a task owns its networks, its batches, its losses and what it leaves behind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmjepa.errors import UserError


@dataclass(frozen=True)
class Layout:
    """How the rows of a global batch are dealt out: ``world`` ranks x ``accumulation`` micro-batches, contiguous."""

    rank: int = 0
    world: int = 1
    accumulation: int = 1

    def micro_rows(self, batch_size: int) -> list[slice]:
        """Rows of the global batch that this rank sees, one slice per micro-batch.

        All are equally long, so that the mean over micro-batches and ranks is the mean over the global batch; raises
        UserError if that is impossible.
        """
        parts = self.world * self.accumulation
        if batch_size % parts:
            raise UserError(
                f"batch_size={batch_size} does not divide into {self.world} ranks x {self.accumulation} micro-batches"
            )
        size = batch_size // parts
        first = self.rank * self.accumulation
        return [slice((first + part) * size, (first + part + 1) * size) for part in range(self.accumulation)]


class Task(nn.Module, ABC):
    """Base of everything trainable. Registered parameters that require gradients are what the optimiser updates.

    Contract for reproducibility: ``batches`` is a pure function of (seed, step), and ``losses`` draws random numbers
    from torch's default generator only, which the engine seeds anew for every (step, rank).
    """

    export_name: ClassVar[str] = "encoder"
    """Folder of a run that :meth:`export` writes into."""

    def __init__(self, precision: str = "fp32") -> None:
        super().__init__()
        self.precision = precision

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Scalar terms of a micro-batch; only ``loss`` carries gradient, the other terms are for the log.

        Mixed precision is autocast over fp32 parameters, entered here because DeepSpeed switches off an autocast that
        it finds around itself; DeepSpeed stays in its fp32 mode. That way ZeRO 0, 1 and 2 do the same arithmetic,
        gradients are reduced in fp32, and the parameters that the EMA teacher follows are fp32.
        """
        device = next(self.parameters()).device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            terms = self.losses(batch)
        # DeepSpeed scales the gradient at every output that requires one: a term inside the loss would be hit twice.
        values = {name: term.detach() for name, term in terms.items()}
        # One, or NaN if any term is not finite: then the gradient is not either, and the step is skipped everywhere
        # (see nonfinite.py).
        sound = torch.stack([value.float() for value in values.values()]).sum() * 0 + 1
        return {**values, "loss": terms["loss"] * sound}

    @abstractmethod
    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Scalar terms of a micro-batch, each a mean over its rows. ``loss`` is their total, which is minimised."""

    @abstractmethod
    def batches(self, start_step: int, layout: Layout) -> Iterator[Sequence[Any]]:
        """For every optimiser step from ``start_step`` (0-based) on: the micro-batches of this rank."""

    @abstractmethod
    def batch_keys(self, batch: Any) -> list[str]:
        """Names of the samples in a micro-batch, for error messages."""

    @abstractmethod
    def export(self, folder: Path, step: int) -> None:
        """Write what later programs load (safetensors + JSON) into ``folder``. Called on rank 0."""

    def after_step(self, step: int) -> dict[str, float]:
        """Called on every rank after optimiser step ``step`` (0-based), e.g. for the EMA; returns values to log."""
        return {}

    def health(self) -> dict[str, float]:
        """Measures of representation health by name, and alarms through the log. Called on every rank."""
        return {}

    def counters(self) -> dict[str, float]:
        """Running totals of this rank (e.g. ``decode_failures``); the log shows their sum over ranks."""
        return {}

    def flops(self, batch: Any) -> float:
        """Floating-point operations of matrix products, forward and backward, of a micro-batch; 0 if unknown."""
        return 0.0

    def data_fingerprints(self) -> dict[str, str]:
        """What the run learns from, by name: a run that is continued must find the same."""
        return {}

    def frozen_modules(self) -> list[nn.Module]:
        """Modules that are not trained but run in every step (e.g. the EMA teacher): ZeRO-3 shares them out too."""
        return []

    def compiled_modules(self) -> list[nn.Module]:
        """What ``compile`` compiles, each by itself; none where the task has no use for it."""
        return []

    def extra_state(self) -> dict[str, Tensor]:
        """Tensors that DeepSpeed does not save (e.g. the EMA teacher), equal on every rank."""
        return {}

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`extra_state` gave."""

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Groups for AdamW: biases, norms, tokens and other vectors (at most one dimension above 1) do not decay."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        decayed = [p for p in trained if sum(size > 1 for size in p.shape) > 1]
        rest = [p for p in trained if sum(size > 1 for size in p.shape) <= 1]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
        return [group for group in groups if group["params"]]
