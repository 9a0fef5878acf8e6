"""The token grid: how a clip is cut into tubelets, and where each token lies."""

from __future__ import annotations

from dataclasses import dataclass

from mmjepa.errors import UserError


@dataclass(frozen=True)
class TokenGrid:
    """Cells of a clip in time, height and width. Flat index = (t * height + y) * width + x: time is slowest."""

    steps: int
    height: int
    width: int
    tubelet: int = 2
    patch: int = 16

    @property
    def spatial(self) -> int:
        """Tokens in one time step."""
        return self.height * self.width

    @property
    def size(self) -> int:
        """Tokens in the clip."""
        return self.steps * self.spatial

    @property
    def shape(self) -> tuple[int, int, int]:
        """(steps, height, width)"""
        return self.steps, self.height, self.width

    @classmethod
    def of_clip(cls, frames: int, height: int, width: int, tubelet: int, patch: int) -> TokenGrid:
        """Grid of a clip of ``frames`` x ``height`` x ``width`` pixels. One frame is a still image: tubelet 1.

        Raises UserError if the clip does not divide into whole tubelets.
        """
        tubelet = 1 if frames == 1 else tubelet
        if frames % tubelet or height % patch or width % patch:
            raise UserError(
                f"a clip of {frames}x{height}x{width} does not divide into tubelets of {tubelet}x{patch}x{patch}"
            )
        return cls(frames // tubelet, height // patch, width // patch, tubelet, patch)
