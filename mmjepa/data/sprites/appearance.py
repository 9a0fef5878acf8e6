"""The 100 appearance classes of the embedded benchmark: 10 shapes x 5 colours x 2 textures.

Shapes are signed distance functions of the unit disc (negative inside, distances in units of the sprite's radius), so
that one clipped linear ramp gives anti-aliased edges at every scale and rotation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.12, 0.12),
    "yellow": (0.95, 0.85, 0.10),
    "green": (0.10, 0.75, 0.20),
    "blue": (0.15, 0.35, 0.95),
    "purple": (0.75, 0.15, 0.85),
}
TEXTURES = ("plain", "striped")

# Coefficients of Rec. 709: brightness matching has to follow what a grey-scale conversion would see.
LUMINANCE = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)


def _circle(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.hypot(x, y) - 0.92


def _ring(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.abs(np.hypot(x, y) - 0.74) - 0.24


def _square(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.maximum(np.abs(x), np.abs(y)) - 0.78


def _triangle(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.maximum(np.float32(np.sqrt(0.75)) * np.abs(x) + 0.5 * y, -y) - 0.55


def _star(x: FloatArray, y: FloatArray) -> FloatArray:
    """Five points: the plane is folded to one tenth, where the outline is a straight line from tip to notch."""
    tenth = np.float32(np.pi / 5)
    angle = np.abs(np.mod(np.arctan2(x, y) + tenth, 2 * tenth) - tenth)
    radius = np.hypot(x, y)
    tip, notch = 1.05, 0.45
    along = np.array([notch * np.cos(tenth) - tip, notch * np.sin(tenth)])
    normal = (np.array([along[1], -along[0]]) / np.hypot(*along)).astype(np.float32)
    return normal[0] * (radius * np.cos(angle) - np.float32(tip)) + normal[1] * radius * np.sin(angle)


def _cross(x: FloatArray, y: FloatArray) -> FloatArray:
    wide, narrow = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
    return np.maximum(wide - 0.95, narrow - 0.30)


def _heart(x: FloatArray, y: FloatArray) -> FloatArray:
    """A square on its corner with a disc on each upper edge."""
    side = np.abs(x)
    half = np.float32(np.sqrt(0.5))
    square = np.maximum(np.abs(side + (y - 0.1)), np.abs(side - (y - 0.1))) * half - 0.56
    disc = np.hypot(side - 0.56 * half, y - 0.1 + 0.56 * half) - 0.56
    return np.minimum(square, disc)


def _crescent(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.maximum(np.hypot(x, y) - 1.0, 0.78 - np.hypot(x - 0.48, y))


def _bar(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.maximum(np.abs(x) - 1.0, np.abs(y) - 0.34)


def _hourglass(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.maximum(np.abs(y) - 0.78, (np.abs(x) - 0.72 * np.abs(y) - 0.12) * 0.81)


SHAPES: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "circle": _circle,
    "ring": _ring,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "heart": _heart,
    "crescent": _crescent,
    "bar": _bar,
    "hourglass": _hourglass,
}
SHAPE_NAMES, COLOUR_NAMES = tuple(SHAPES), tuple(COLOURS)
APPEARANCE_CLASSES = len(SHAPE_NAMES) * len(COLOUR_NAMES) * len(TEXTURES)


@dataclass(frozen=True)
class Appearance:
    """What an object looks like, apart from pose and scale."""

    shape: str
    colour: str
    texture: str

    @classmethod
    def from_index(cls, index: int) -> Appearance:
        """The appearance class ``index`` in [0, 100)."""
        shape, pair = divmod(index, len(COLOUR_NAMES) * len(TEXTURES))
        colour, texture = divmod(pair, len(TEXTURES))
        return cls(SHAPE_NAMES[shape], COLOUR_NAMES[colour], TEXTURES[texture])

    @property
    def index(self) -> int:
        """The class index in [0, 100)."""
        return SHAPE_NAMES.index(self.shape) * len(COLOUR_NAMES) * len(TEXTURES) + self.pair_index

    @property
    def pair_index(self) -> int:
        """Index of the (colour, texture) pair in [0, 10)."""
        return COLOUR_NAMES.index(self.colour) * len(TEXTURES) + TEXTURES.index(self.texture)

    @property
    def name(self) -> str:
        """The class name as one says it: 'striped red star'."""
        return f"{self.texture} {self.colour} {self.shape}"


def luminance(rgb: FloatArray) -> float:
    """Luminance in [0, 1] of an RGB colour with values in [0, 1]."""
    return float(np.asarray(rgb, dtype=np.float32) @ LUMINANCE)


def with_luminance(rgb: FloatArray, target: float) -> FloatArray:
    """The colour of the same hue with luminance ``target``: darkened, or mixed with white."""
    current = luminance(rgb)
    if target <= current:
        return (rgb * (target / current)).astype(np.float32)
    return (rgb + (1 - rgb) * ((target - current) / (1 - current))).astype(np.float32)


def coverage(shape: str, x: FloatArray, y: FloatArray, radius: float, outline: float) -> FloatArray:
    """Share of each pixel covered by the shape, in [0, 1]; ``x``, ``y`` are pixels from its centre, already rotated.

    ``outline`` > 0 keeps only a rim of that width in pixels.
    """
    distance = SHAPES[shape](x / np.float32(radius), y / np.float32(radius)) * np.float32(radius)
    if outline > 0:
        distance = np.abs(distance + outline / 2) - outline / 2
    return np.clip(0.5 - distance, 0.0, 1.0)


def texture_gain(texture: str, x: FloatArray, radius: float) -> FloatArray | None:
    """Factor on the colour per pixel (mean about 1), or None for a plain sprite; stripes run across the x axis."""
    if texture == "plain":
        return None
    period = max(4.5, 0.55 * radius)
    return 1 + 0.75 * np.clip(2 * np.sin(x * np.float32(2 * np.pi / period)), -1, 1)
