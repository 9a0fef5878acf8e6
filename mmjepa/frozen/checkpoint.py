"""Reading an exported encoder folder: ``model.safetensors`` (encoder and predictor weights) and ``config.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mmjepa.digest import file_sha256
from mmjepa.errors import UserError
from mmjepa.models import ModelConfig, PredictorConfig, VideoJEPA, build_video_jepa
from mmjepa.objectives import FactorConfig

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class ExportedEncoder:
    """A model as training exported it, with the pixel normalisation it was trained on and its pretraining seed.

    ``targets`` is what its predictor was trained towards (see ``ObjectiveConfig.targets``), ``factors`` how its
    channels were split.
    """

    model: VideoJEPA
    targets: str
    factors: FactorConfig
    fingerprint: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    seed: int | None


def load_exported(folder: Path) -> ExportedEncoder:
    """Load an exported encoder. Raises UserError if files are missing, damaged, or of another shape."""
    config = _read_config(folder)
    try:
        weights = load_file(folder / WEIGHTS_FILE)
    except (FileNotFoundError, SafetensorError) as error:
        raise UserError(f"cannot read {folder / WEIGHTS_FILE}: {error}") from error
    try:
        settings = {name: value for name, value in config["model"].items() if name != "recompute"}  # no backward pass
        model_config = ModelConfig(**{**settings, "predictor": PredictorConfig(**settings["predictor"])})
        mean, std, seed = _triple(config["mean"]), _triple(config["std"]), config["seed"]
        targets = str(config["objective"]["targets"])
        factors = FactorConfig(**config["objective"]["factors"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / CONFIG_FILE} is not the config of an exported encoder: {error!r}") from error
    with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten: nobody's random numbers move
        model = build_video_jepa(model_config)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"the weights in {folder} do not fit their config: {reason}") from error
    # Pixel statistics and targets too: the same weights give other features with them.
    fingerprint = fingerprint_of(file_sha256(folder / WEIGHTS_FILE), config["model"], mean, std, targets)
    return ExportedEncoder(model, targets, factors, fingerprint, mean, std, seed)


def fingerprint_of(*parts: Any) -> str:
    """sha256 (hex) over JSON-able parts: equal parts, equal fingerprint."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG_FILE).read_text())
    except OSError as error:
        raise UserError(f"no exported encoder at {folder}: {CONFIG_FILE} cannot be read ({error.strerror})") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{folder / CONFIG_FILE} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{folder / CONFIG_FILE} is not the config of an exported encoder")
    return config


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third
