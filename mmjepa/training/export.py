"""What a pretraining run leaves behind: safetensors and JSON, loadable without this package and without pickle."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from mmjepa import __version__
from mmjepa.frozen.checkpoint import CONFIG_FILE, WEIGHTS_FILE

HEADS_FILE = "heads.safetensors"


def export_encoder(
    folder: Path, encoder: nn.Module, predictor: nn.Module, heads: nn.Module, facts: Mapping[str, Any]
) -> None:
    """Write ``model.safetensors`` (``encoder.*``, ``predictor.*``), ``heads.safetensors`` (if any) and ``config.json``.

    ``facts`` go into the JSON; dataclasses among them become plain dictionaries. The folder appears whole or not at
    all, and replaces an older one.
    """
    partial = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file({**_weights("encoder.", encoder), **_weights("predictor.", predictor)}, partial / WEIGHTS_FILE)
    head_weights = _weights("", heads)
    if head_weights:
        save_file(head_weights, partial / HEADS_FILE)
    plain = {key: _plain(fact) for key, fact in facts.items()}
    (partial / CONFIG_FILE).write_text(json.dumps({"format": 1, "mmjepa": __version__, **plain}, indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _weights(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {prefix + name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}


def _plain(fact: Any) -> Any:
    return dataclasses.asdict(fact) if dataclasses.is_dataclass(fact) and not isinstance(fact, type) else fact
