"""Text towers of open_clip models."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from mmjepa.errors import UserError
from mmjepa.text.protocol import TextTower

logger = logging.getLogger(__name__)


class OpenClipTower(TextTower):
    """The text side of an open_clip model.

    ``pretrained`` is an open_clip tag or a path of weights. None means random weights, which is a control and not a
    text encoder: it is allowed, and said aloud. Raises UserError for an unknown model or tag, or if weights or the
    tokenizer would have to be fetched and cannot be.
    """

    def __init__(self, model: str, pretrained: str | None, batch: int, device: torch.device) -> None:
        import open_clip  # takes seconds, only where it is used

        try:
            with torch.random.fork_rng(devices=[]):  # random weights must be the same in every process
                torch.manual_seed(0)
                network = open_clip.create_model(model, pretrained=pretrained, device="cpu").to(device)
            self._tokenize = open_clip.get_tokenizer(model)
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError is what open_clip raises for unknown names
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"cannot load the text tower '{model}' (pretrained {pretrained}): {reason}") from error
        if pretrained is None:
            logger.warning(
                "text tower open_clip/%s has RANDOM weights (pretrained: null): a control, no encoder", model
            )
        self._model, self._device = network.eval().requires_grad_(False), device
        width = self._encode(["width"]).shape[1]
        super().__init__(f"open_clip/{model}/{pretrained or 'random'}", width, batch)

    def _embed(self, texts: list[str]) -> Tensor:
        return self._encode(texts)

    @torch.no_grad()
    def _encode(self, texts: list[str]) -> Tensor:
        return self._model.encode_text(self._tokenize(texts).to(self._device))
