"""The video encoder: tubelet (or image patch) embedding, rotary transformer, four normalised output levels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmjepa.models.config import ModelConfig
from mmjepa.models.grid import TokenGrid
from mmjepa.models.rope import rotary_table, table_of
from mmjepa.models.transformer import NORM_EPS, Trunk, initialise

CHANNELS = 3


def patchify(pixels: Tensor, grid: TokenGrid) -> Tensor:
    """Cut pixels (B, 3, T, H, W) into flattened tubelets (B, N, 3 * tubelet * patch * patch), channel slowest."""
    cells = pixels.unflatten(4, (grid.width, grid.patch)).unflatten(3, (grid.height, grid.patch))
    cells = cells.unflatten(2, (grid.steps, grid.tubelet))  # B, 3, T', t, H', p, W', p
    return cells.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Rows ``index`` (B, K) of tokens (B, N, ...) -> (B, K, ...)"""
    return tokens[torch.arange(len(tokens), device=tokens.device)[:, None], index]


class Encoder(nn.Module):
    """Vision transformer over space-time tokens (paper section 3; reference specification 2.1).

    Sees the whole clip, or only the tokens of an index set, which are picked before any mixing so that nothing hidden
    leaks. A clip of one frame is a still image with its own patch embedding and modality vector.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        patch_values = CHANNELS * config.patch**2
        self.embed_video = nn.Linear(patch_values * config.tubelet, config.width)
        self.embed_image = nn.Linear(patch_values, config.width)
        self.video_modality = nn.Parameter(torch.randn(1, 1, config.width) * 1e-6)
        self.image_modality = nn.Parameter(torch.randn(1, 1, config.width) * 1e-6)
        initialise(self.embed_video)
        initialise(self.embed_image)
        self.trunk = Trunk(config.width, config.depth, config.heads, config.mlp_ratio, config.recompute)
        self.norms = nn.ModuleList(nn.LayerNorm(config.width, eps=NORM_EPS) for _ in range(config.levels))

    def grid_of(self, pixels: Tensor) -> TokenGrid:
        """Token grid of a clip tensor (B, 3, T, H, W), at any resolution that divides into patches."""
        frames, height, width = pixels.shape[2:]
        return TokenGrid.of_clip(frames, height, width, self.config.tubelet, self.config.patch)

    def forward(self, clip: Tensor, index: Tensor | None = None, grid: TokenGrid | None = None) -> Tensor:
        """Pixels (B, 3, T, H, W) -> levels (B, N, L, D), or (B, K, L, D) for the visible tokens ``index`` (B, K).

        With ``grid``, ``clip`` is what :func:`patchify` cut, once for several passes.
        """
        patches = clip
        if grid is None:
            grid = self.grid_of(clip)
            patches = patchify(clip, grid)
        rotary = rotary_table(grid, self.config.width // self.config.heads, patches.device)
        if index is not None:
            patches = gather_tokens(patches, index)
            rotary = table_of(rotary, index)
        if grid.tubelet == 1 and grid.steps == 1:
            tokens = self.embed_image(patches) + self.image_modality
        else:
            tokens = self.embed_video(patches) + self.video_modality
        levels = self.trunk(tokens, rotary, self.config.taps)
        return torch.stack([norm(level) for norm, level in zip(self.norms, levels, strict=True)], dim=2)
