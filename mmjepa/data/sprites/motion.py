"""Fine motion: 48 classes, each a sequence of three movements along the axes.

Every path is a straight first segment and two turns, at about one third and two thirds of the clip. A class is the
triple (first, second, third) of directions; the second may go straight on (4 choices), the third must differ from the
second (3 choices), so every class ends in a visible turn. Which class it is can only be read from the order.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

DIRECTIONS: dict[str, tuple[float, float]] = {
    "right": (1.0, 0.0),
    "down": (0.0, 1.0),
    "left": (-1.0, 0.0),
    "up": (0.0, -1.0),
}
MOTION_CLASSES: tuple[tuple[str, str, str], ...] = tuple(
    (first, second, third) for first, second, third in itertools.product(DIRECTIONS, repeat=3) if third != second
)


@dataclass(frozen=True)
class Movements:
    """The three movements of one clip."""

    directions: tuple[str, str, str]
    turns: tuple[float, float]  # frame numbers of the two turns (real numbers)
    speed: float  # pixels per frame, the same in all segments


def draw_movements(rng: np.random.Generator, label: int, speed: float, frames: int) -> Movements:
    """Draw the turning times of a clip of class ``label``: each within a twelfth of the clip around its third."""
    span = frames - 1
    first, second = (np.array([1 / 3, 2 / 3]) + rng.uniform(-1 / 24, 1 / 24, size=2)) * span
    return Movements(MOTION_CLASSES[label], (float(first), float(second)), speed)


def movement_path(movements: Movements, frames: int) -> FloatArray:
    """Displacement from the first frame, (T, 2) pixels."""
    time = np.arange(frames, dtype=np.float64)
    edges = [0.0, *movements.turns, float(frames - 1)]
    path = np.zeros((frames, 2))
    for direction, start, end in zip(movements.directions, edges[:-1], edges[1:], strict=True):
        spent = np.clip(time - start, 0.0, end - start)
        path += spent[:, None] * movements.speed * np.array(DIRECTIONS[direction])
    return path.astype(np.float32)
