"""The split of token channels into an appearance and a dynamics factor.

``within_level`` (default) splits the channels of every level, so that each level, the last one included, carries both
factors. ``across_levels`` splits the concatenation of levels as the published code did, which makes "appearance" the
early and "dynamics" the late layers (reference specification D3).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mmjepa.errors import UserError

SPLITS = ("within_level", "across_levels")


@dataclass
class FactorConfig:
    """Where the split runs and which share of channels is appearance."""

    split: str = "within_level"
    appearance_share: float = 0.5

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise UserError(f"objective: factors.split must be one of {', '.join(SPLITS)}, not {self.split!r}")
        if not 0 < self.appearance_share < 1:
            raise UserError(f"objective: factors.appearance_share must lie in (0, 1), not {self.appearance_share}")

    def divide(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (..., L, D) -> appearance (..., Ca) and dynamics (..., Cd), level-major, Ca + Cd = L * D."""
        if self.split == "within_level":
            cut = self._cut(tokens.shape[-1])
            return tokens[..., :cut].flatten(-2), tokens[..., cut:].flatten(-2)
        flat = tokens.flatten(-2)
        cut = self._cut(flat.shape[-1])
        return flat[..., :cut], flat[..., cut:]

    def dynamics_channels(self, levels: int, width: int) -> int:
        """Cd: channels of the dynamics factor over all levels."""
        if self.split == "within_level":
            return levels * (width - self._cut(width))
        return levels * width - self._cut(levels * width)

    def _cut(self, channels: int) -> int:
        return max(1, int(channels * self.appearance_share))
