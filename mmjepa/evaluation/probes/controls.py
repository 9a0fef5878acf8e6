"""Controls of a probe: clips without motion, clips without order, and the answer that never looks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmjepa.errors import UserError
from mmjepa.evaluation.dropout import keyed_uniforms

CONTROLS = ("none", "single_frame", "shuffled_frames")
_SHUFFLE_SEED = 0  # part of the definition of the control: every encoder sees the same shuffled clips


def control_pixels(pixels: Tensor, control: str, keys: Sequence[str]) -> Tensor:
    """Pixels (B, 3, T, H, W) under a control, to be encoded and probed like the clips themselves, train and test.

    ``none``: unchanged. ``single_frame``: the middle frame (T // 2) repeated. ``shuffled_frames``: frames in an order
    drawn by a hash of the clip's key. A task on which these score as well as ``none`` does not ask for time.
    Raises UserError on an unknown control.
    """
    if control not in CONTROLS:
        raise UserError(f"unknown control '{control}': choose from {', '.join(CONTROLS)}")
    if len(keys) != len(pixels):
        raise ValueError(f"{len(keys)} keys for {len(pixels)} clips")
    frames = pixels.shape[2]
    if control == "none":
        return pixels
    if control == "single_frame":
        return pixels[:, :, frames // 2 : frames // 2 + 1].expand_as(pixels).contiguous()
    orders = [torch.from_numpy(keyed_uniforms(key, _SHUFFLE_SEED, frames)).argsort() for key in keys]
    return torch.stack([clip[:, order.to(pixels.device)] for clip, order in zip(pixels, orders, strict=True)])
