"""The predictor: context tokens and target positions in, target-encoder tokens at both out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmjepa.models.config import ModelConfig
from mmjepa.models.grid import TokenGrid
from mmjepa.models.rope import rotary_table, table_of
from mmjepa.models.transformer import NORM_EPS, Trunk, initialise


class Predictor(nn.Module):
    """A narrow transformer over context tokens and mask tokens (reference specification 2.3).

    All levels of the context go in, all levels of the target encoder are predicted, by separate output projections for
    target and for context tokens. Attention is full and positions are rotary, so token order carries no meaning and no
    sorting into raster order is needed.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.levels, self.level_width = config.levels, config.width
        self.head_dim = config.predictor.width // config.predictor.heads
        width, flat = config.predictor.width, config.levels * config.width
        self.embed = nn.Sequential(nn.Linear(flat, config.width), nn.GELU(), nn.Linear(config.width, width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.video_modality = nn.Parameter(torch.randn(1, 1, width) * 1e-6)
        self.image_modality = nn.Parameter(torch.randn(1, 1, width) * 1e-6)
        self.trunk = Trunk(width, config.predictor.depth, config.predictor.heads, 4.0, config.recompute)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.to_target = nn.Linear(width, flat)
        self.to_context = nn.Linear(width, flat)
        for module in (self.embed, self.to_target, self.to_context):
            module.apply(initialise)

    def forward(
        self, context: Tensor, context_index: Tensor, target_index: Tensor, grid: TokenGrid
    ) -> tuple[Tensor, Tensor]:
        """Context (B, K, L, D) at ``context_index`` (B, K) -> (at targets (B, P, L, D), at context (B, K, L, D))."""
        index = torch.cat([context_index, target_index], dim=1)
        visible = self.embed(context.flatten(2))
        hidden = self.mask_token.to(visible.dtype).expand(len(context), target_index.shape[1], -1)
        image = grid.tubelet == 1 and grid.steps == 1
        tokens = torch.cat([visible, hidden], dim=1) + (self.image_modality if image else self.video_modality)
        rotary = table_of(rotary_table(grid, self.head_dim, tokens.device), index)
        depth = len(self.trunk.blocks)
        tokens = self.norm(self.trunk(tokens, rotary, (depth - 1,))[0])
        kept = context_index.shape[1]
        shape = (self.levels, self.level_width)
        at_target = self.to_target(tokens[:, kept:]).unflatten(-1, shape)
        at_context = self.to_context(tokens[:, :kept]).unflatten(-1, shape)
        return at_target, at_context
