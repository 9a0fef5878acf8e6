"""From configuration to a frozen encoder: one builder per ``kind``. A new kind of encoder is one entry here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import MISSING

from mmjepa.errors import UserError
from mmjepa.frozen.checkpoint import load_exported
from mmjepa.frozen.controls import RawPatches, untrained_like
from mmjepa.frozen.own import FACTORS, LEVELS, PRECISIONS, FrozenVideoJEPA
from mmjepa.frozen.protocol import FrozenEncoder


@dataclass
class EncoderConfig:
    """Which frozen encoder. ``name`` is its row in tables; ``checkpoint`` a folder exported by training.

    The controls take the architecture (``random_init``) or the clip geometry (``raw_patches``) of ``checkpoint``.
    """

    kind: str = MISSING
    name: str = MISSING
    checkpoint: str = MISSING
    levels: str = "last"
    factor: str = "all"
    precision: str = "fp32"
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        choices = {"levels": LEVELS, "factor": FACTORS, "precision": PRECISIONS}
        for key, allowed in choices.items():
            if getattr(self, key) not in allowed:
                raise UserError(f"encoder.{key}={getattr(self, key)}: choose one of {', '.join(allowed)}")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"encoder.seed={self.seed}: give a number from 0 on")


def resolve_device(device: str) -> torch.device:
    """``auto`` is the first GPU if there is one, else the CPU. Raises UserError for an unknown device."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"unknown device '{device}'") from error
    if chosen.type not in ("cpu", "cuda"):
        raise UserError(f"device '{device}': only cpu and cuda are supported")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device '{device}' is not on this machine ({torch.cuda.device_count()} GPUs)")
    return chosen


def _own(config: EncoderConfig) -> FrozenEncoder:
    exported = load_exported(Path(config.checkpoint))
    return FrozenVideoJEPA(
        exported, config.name, config.levels, config.factor, config.precision, resolve_device(config.device)
    )


def _random_init(config: EncoderConfig) -> FrozenEncoder:
    untrained = untrained_like(load_exported(Path(config.checkpoint)), config.seed)
    return FrozenVideoJEPA(
        untrained, config.name, config.levels, config.factor, config.precision, resolve_device(config.device)
    )


def _raw_patches(config: EncoderConfig) -> FrozenEncoder:
    if (config.levels, config.factor, config.precision) != ("last", "all", "fp32"):
        raise UserError("encoder kind raw_patches has no levels, factors or precision to choose")
    exported = load_exported(Path(config.checkpoint))
    return RawPatches(exported.model.config, config.name, exported.mean, exported.std, resolve_device(config.device))


BUILDERS: dict[str, Callable[[EncoderConfig], FrozenEncoder]] = {
    "own": _own,
    "random_init": _random_init,
    "raw_patches": _raw_patches,
}


def build_encoder(config: EncoderConfig) -> FrozenEncoder:
    """Build the frozen encoder that ``config`` names. Raises UserError: unknown kind, unusable checkpoint."""
    if config.kind not in BUILDERS:
        raise UserError(f"unknown encoder kind '{config.kind}' (known: {', '.join(sorted(BUILDERS))})")
    return BUILDERS[config.kind](config)
