"""Reading state dicts in the key names of the public V-JEPA 2.1 code."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from mmjepa.errors import UserError

_ENCODER_NAMES = (
    (r"^patch_embed\.proj\.", "embed_video."),
    (r"^patch_embed_img\.proj\.", "embed_image."),
    (r"^video_mod_embed$", "video_modality"),
    (r"^img_mod_embed$", "image_modality"),
    (r"^norms_block\.", "norms."),
    (r"^blocks\.", "trunk.blocks."),
)
_PREDICTOR_NAMES = (
    (r"^predictor_embed\.", "embed."),
    (r"^mask_tokens\.0$", "mask_token"),
    (r"^video_mod_embed$", "video_modality"),
    (r"^img_mod_embed$", "image_modality"),
    (r"^predictor_blocks\.", "trunk.blocks."),
    (r"^predictor_norm\.", "norm."),
    (r"^predictor_proj\.", "to_target."),
    (r"^predictor_proj_context\.", "to_context."),
)
_BLOCK_NAMES = ((r"\.attn\.", ".attention."), (r"\.mlp\.fc1\.", ".mlp.0."), (r"\.mlp\.fc2\.", ".mlp.2."))


def encoder_state(public: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Public encoder weights under our names. Patch convolutions become the equal linear maps of flattened tubelets."""
    state = _rename(public, _ENCODER_NAMES)
    for name in ("embed_video.weight", "embed_image.weight"):
        if name in state:
            state[name] = state[name].flatten(1)
    return state


def predictor_state(public: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Public predictor weights under our names. Only the first mask token is kept: the public code uses no other."""
    used = {key: value for key, value in public.items() if not re.match(r"^mask_tokens\.[1-9]", key)}
    return _rename(used, _PREDICTOR_NAMES)


def _rename(public: Mapping[str, Tensor], names: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    state = {}
    for key, value in public.items():
        renamed = key
        for pattern, replacement in names:
            if re.match(pattern, key):
                renamed = re.sub(pattern, replacement, key)
                break
        else:
            raise UserError(f"weights: {key!r} is not a key of the public V-JEPA 2.1 code")
        for pattern, replacement in _BLOCK_NAMES:
            renamed = re.sub(pattern, replacement, renamed)
        state[renamed] = value
    return state
