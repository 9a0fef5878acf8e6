"""Temporal reasoning: 16 templates over two objects, in pairs that are each other's exact time reversal.

Only the even class of a pair is ever drawn; a clip of the odd class is an even one played backwards (trajectories,
camera and distractors). A model that does not use the order of frames is therefore at chance within a pair.
The subject is object 0, the other one object 1. Paths are drawn in a frame of their own and then turned by a uniform
angle and shifted uniformly over the torus, so the place of an object tells nothing either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]

COMPACT = ("circle", "square", "heart")  # shapes that can hide something
_INNER = {"circle": 0.92, "square": 0.78, "heart": 0.66}  # radius of the largest disc inside, of the sprite's radius


@dataclass(frozen=True)
class Pose:
    """Scale and trajectory of one object of a template, in the template's own frame."""

    radius: float
    path: FloatArray  # (T, 2) pixels
    depth: NDArray[np.int8]  # (T,)
    outline: float = 0.0


@dataclass(frozen=True)
class Timing:
    """When the action happens: progress 0 before ``start``, 1 from ``end`` on (frame numbers)."""

    start: float
    end: float

    def progress(self, frames: int) -> FloatArray:
        """Progress of the action in [0, 1] at every frame, linear in time."""
        return np.clip((np.arange(frames) - self.start) / (self.end - self.start), 0.0, 1.0)


@dataclass(frozen=True)
class Template:
    """A pair of classes: ``names[0]`` as drawn, ``names[1]`` played backwards."""

    names: tuple[str, str]
    draw: Callable[[np.random.Generator, Timing, int, tuple[str, str]], tuple[Pose, Pose]]
    subject_shapes: tuple[str, ...] = ()  # allowed shapes; empty = all
    other_shapes: tuple[str, ...] = ()


def _line(x: FloatArray, y: float = 0.0) -> FloatArray:
    return np.stack([x, np.full_like(x, y)], axis=1)


def _still(frames: int) -> FloatArray:
    return np.zeros((frames, 2))


def _layer(frames: int, depth: int) -> NDArray[np.int8]:
    return np.full(frames, depth, dtype=np.int8)


def _approach(rng: np.random.Generator, timing: Timing, frames: int, shapes: tuple[str, str]) -> tuple[Pose, Pose]:
    radii = rng.uniform(6.0, 8.0, size=2)
    near, far = radii.sum() + rng.uniform(0.5, 2.0), rng.uniform(26.0, 29.0)
    x = far + (near - far) * timing.progress(frames)
    return Pose(radii[0], _line(x), _layer(frames, 3)), Pose(radii[1], _still(frames), _layer(frames, 2))


def _cover(rng: np.random.Generator, timing: Timing, frames: int, shapes: tuple[str, str]) -> tuple[Pose, Pose]:
    small = rng.uniform(5.5, 6.5)
    large = small / _INNER[shapes[0]] + 3.0
    x = (large + small + rng.uniform(1.0, 4.0)) * (1 - timing.progress(frames))
    return Pose(large, _line(x), _layer(frames, 3)), Pose(small, _still(frames), _layer(frames, 2))


def _enter(rng: np.random.Generator, timing: Timing, frames: int, shapes: tuple[str, str]) -> tuple[Pose, Pose]:
    small, large = rng.uniform(5.0, 6.0), rng.uniform(16.0, 18.0)
    far, end = large + small + rng.uniform(1.0, 4.0), rng.uniform(-3.0, 3.0)
    x = far + (end - far) * timing.progress(frames)
    region = Pose(large, _still(frames), _layer(frames, 2), outline=2.5)
    return Pose(small, _line(x, rng.uniform(-3.0, 3.0)), _layer(frames, 3)), region


def _hide(rng: np.random.Generator, timing: Timing, frames: int, shapes: tuple[str, str]) -> tuple[Pose, Pose]:
    small = rng.uniform(5.5, 6.5)
    large = small / _INNER[shapes[1]] + 3.0
    x = (large + small + rng.uniform(1.0, 4.0)) * (1 - timing.progress(frames))
    return Pose(small, _line(x), _layer(frames, 2)), Pose(large, _still(frames), _layer(frames, 3))


def _chase(rng: np.random.Generator, timing: Timing, frames: int, shapes: tuple[str, str]) -> tuple[Pose, Pose]:
    """Both run along one arc, the small one ahead; backwards the small one is behind."""
    small, large = rng.uniform(5.0, 5.8), rng.uniform(8.5, 9.5)
    gap = small + large + rng.uniform(2.0, 5.0)
    pace, bend = 38.0 / max(timing.end - timing.start, 1.0), rng.uniform(-0.035, 0.035)
    run = pace * (np.arange(frames) - (frames - 1) / 2)

    def arc(s: FloatArray) -> FloatArray:
        if abs(bend) < 1e-4:
            return _line(s)
        return np.stack([np.sin(bend * s) / bend, (1 - np.cos(bend * s)) / bend], axis=1)

    chaser, chased = arc(run - gap / 2), arc(run + gap / 2)
    return Pose(large, chaser, _layer(frames, 2)), Pose(small, chased, _layer(frames, 3))


def _orbit(rng: np.random.Generator, timing: Timing, frames: int, shapes: tuple[str, str]) -> tuple[Pose, Pose]:
    """Clockwise on the screen, since y points down."""
    radii = rng.uniform(6.0, 7.5, size=2)
    distance, turn = radii.sum() + rng.uniform(1.0, 4.0), rng.uniform(1.0, 1.4) * np.pi
    angle = turn * timing.progress(frames)
    path = distance * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return Pose(radii[0], path, _layer(frames, 3)), Pose(radii[1], _still(frames), _layer(frames, 2))


def _speed_up(rng: np.random.Generator, timing: Timing, frames: int, shapes: tuple[str, str]) -> tuple[Pose, Pose]:
    """The subject passes the other one; its speed grows to about ten times its start."""
    radii = rng.uniform(6.0, 7.5, size=2)
    reach, side = rng.uniform(20.0, 24.0), rng.choice([-1.0, 1.0]) * (radii.sum() + 1.5)
    progress = timing.progress(frames)
    x = reach * (2 * (0.2 * progress + 0.8 * progress**2) - 1)
    return Pose(radii[0], _line(x, side), _layer(frames, 3)), Pose(radii[1], _still(frames), _layer(frames, 2))


def _front_then_behind(
    rng: np.random.Generator, timing: Timing, frames: int, shapes: tuple[str, str]
) -> tuple[Pose, Pose]:
    """There and back: over the other one first, then underneath it."""
    radii = rng.uniform(6.5, 7.5), rng.uniform(8.0, 9.5)
    reach = sum(radii) + rng.uniform(0.5, 2.0)
    progress = timing.progress(frames)
    x = reach * (1 - 2 * np.abs(1 - 2 * progress)) * -1.0
    depth = np.where(progress < 0.5, 3, 1).astype(np.int8)
    return Pose(radii[0], _line(x), depth), Pose(radii[1], _still(frames), _layer(frames, 2))


TEMPLATES: tuple[Template, ...] = (
    Template(("approaching", "leaving"), _approach),
    Template(("covering", "uncovering"), _cover, subject_shapes=COMPACT),
    Template(("entering", "exiting"), _enter, other_shapes=("circle", "square")),
    Template(("hiding behind", "emerging from behind"), _hide, other_shapes=COMPACT),
    Template(("chasing", "running ahead of"), _chase),
    Template(("circling clockwise", "circling anticlockwise"), _orbit),
    Template(("speeding up past", "slowing down past"), _speed_up),
    Template(("passing in front then behind", "passing behind then in front"), _front_then_behind),
)
RELATION_CLASSES: tuple[str, ...] = tuple(name for template in TEMPLATES for name in template.names)


def draw_timing(rng: np.random.Generator, speed: float, fastest: float, frames: int) -> Timing:
    """When the action happens: the slower, the longer (at most 0.9 of the clip), at a uniform place in the clip."""
    span = frames - 1
    length = span * min(0.9, 0.42 * (fastest / speed) ** 0.8)
    start = rng.uniform(0.0, span - length)
    return Timing(float(start), float(start + length))


def place(rng: np.random.Generator, poses: tuple[Pose, Pose], size: int, drift: float) -> tuple[FloatArray, FloatArray]:
    """Turn both paths by one uniform angle, shift them uniformly over the torus, and let both drift together.

    The common drift (at most ``drift`` pixels per frame, in any direction) keeps "which of the two moves" from being
    the same as "which pixels change". It is symmetric under reversal. Returns two paths (T, 2) in pixels.
    """
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    heading, pace = rng.uniform(0, 2 * np.pi), drift * np.sqrt(rng.uniform())
    frames = len(poses[0].path)
    common = np.outer(np.arange(frames) - (frames - 1) / 2, pace * np.array([np.cos(heading), np.sin(heading)]))
    shift = rng.uniform(0, size, size=2)
    return poses[0].path @ turn + common + shift, poses[1].path @ turn + common + shift
