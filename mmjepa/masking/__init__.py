"""Index sets: which tokens are context and which are targets. Pure functions of (grid, generator)."""

from mmjepa.masking.multiblock import BlockMask, MaskingConfig, MaskSet, draw_masks

__all__ = ["BlockMask", "MaskSet", "MaskingConfig", "draw_masks"]
