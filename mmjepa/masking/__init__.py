"""Index sets: which tokens are context and which are targets. Pure functions of (grid, generator, motion)."""

from mmjepa.masking.motion import MotionGuidance, motion_map
from mmjepa.masking.multiblock import BlockMask, MaskingConfig, MaskSet, draw_masks

__all__ = ["BlockMask", "MaskSet", "MaskingConfig", "MotionGuidance", "draw_masks", "motion_map"]
