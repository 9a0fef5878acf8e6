"""The knobs of the benchmark's difficulty."""

from __future__ import annotations

from dataclasses import dataclass, field

from mmjepa.errors import UserError

SPEED_NAMES = ("slow", "medium", "fast")


@dataclass
class SceneOptions:
    """Distributions that clips are drawn from; every list is drawn from uniformly, per clip."""

    size: int = 64  # pixels, width = height
    frames: int = 32
    fps: int = 16
    speeds: list[float] = field(default_factory=lambda: [1.5, 2.25, 3.0])  # pixels per frame: slow, medium, fast
    background_levels: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5])  # texture strength in [0, 1]
    distractor_counts: list[int] = field(default_factory=lambda: [0, 1])
    camera_drift: float = 0.2  # greatest speed, pixels per frame; the direction is uniform
    match_brightness: bool = True  # pull objects to the ground's luminance, as far as the texture strength goes

    def __post_init__(self) -> None:
        """Refuse values that would make labels ambiguous or clips impossible to encode."""
        if self.size < 48 or self.size % 2:
            raise UserError(f"scene.size={self.size}: must be even and at least 48")
        if self.frames < 12:
            raise UserError(f"scene.frames={self.frames}: at least 12 are needed to show three movements")
        if self.fps < 1:
            raise UserError(f"scene.fps={self.fps}: must be positive")
        if len(self.speeds) != len(SPEED_NAMES) or sorted(self.speeds) != list(self.speeds) or self.speeds[0] <= 0:
            raise UserError(f"scene.speeds={list(self.speeds)}: give three positive values, slow to fast")
        if not self.background_levels or not all(0 <= level <= 1 for level in self.background_levels):
            raise UserError(f"scene.background_levels={list(self.background_levels)}: values must lie in [0, 1]")
        if not self.distractor_counts or not all(0 <= count <= 4 for count in self.distractor_counts):
            raise UserError(f"scene.distractor_counts={list(self.distractor_counts)}: values must lie in 0..4")
        if not 0 <= self.camera_drift <= 0.5 * self.speeds[0]:
            raise UserError(f"scene.camera_drift={self.camera_drift}: must lie between 0 and half the slow speed")
