"""A scene: everything a clip of the embedded benchmark shows, as plain numbers, before any pixel is drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmjepa.data.sprites.appearance import Appearance

KINDS = ("appearance", "motion", "relations")
FloatArray = NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True)
class Sprite:
    """One object. Coordinates are pixels of the unwrapped torus, x to the right, y down."""

    appearance: Appearance
    rgb: tuple[float, float, float]
    radius: float
    angle: float  # radians, constant over the clip
    path: FloatArray  # (T, 2) centre on the screen (x, y)
    depth: NDArray[np.int8]  # (T,) painter's order: higher is nearer
    outline: float = 0.0  # rim width in pixels; 0 = filled


@dataclass(frozen=True)
class Background:
    """A periodic texture; ``strength`` 0 is a plain ground, 1 the strongest texture."""

    strength: float
    rgb: tuple[float, float, float]  # mean colour
    pattern: str
    seed: int


@dataclass(frozen=True)
class Scene:
    """A clip or still to be rendered, with its labels and ground truth."""

    kind: str
    split: str
    seed: int
    index: int
    label: int
    label_name: str
    size: int  # width = height in pixels
    fps: int
    objects: tuple[Sprite, ...]  # the ones that captions speak of, subject first
    distractors: tuple[Sprite, ...]
    background: Background
    camera: FloatArray  # (T, 2) camera position in the world, pixels; already subtracted from every path
    factors: dict[str, Any]  # factor name -> drawn value
    held_out: bool  # an (appearance, motion) combination that never occurs in train

    @property
    def frames(self) -> int:
        """Number of frames T."""
        return len(self.camera)

    @property
    def random_key(self) -> tuple[int, ...]:
        """What random streams of this scene are keyed by."""
        return random_key(self.kind, self.index, self.split, self.seed)


def random_key(kind: str, index: int, split: str, seed: int) -> tuple[int, int, int, int]:
    """Whole numbers that identify a scene; streams made from different keys are independent."""
    split_number = int.from_bytes(hashlib.sha256(split.encode()).digest()[:6], "big")
    return seed, KINDS.index(kind), split_number, index


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    """One of ``choices``, uniformly; many times faster than ``rng.choice``, which makes an array of them first."""
    return choices[int(rng.integers(len(choices)))]


def reversed_sprite(sprite: Sprite) -> Sprite:
    """The same sprite with time running backwards."""
    return replace(sprite, path=sprite.path[::-1].copy(), depth=sprite.depth[::-1].copy())


def reversed_scene(scene: Scene) -> Scene:
    """The scene played backwards; labels and factors are left as they are."""
    return replace(
        scene,
        objects=tuple(reversed_sprite(sprite) for sprite in scene.objects),
        distractors=tuple(reversed_sprite(sprite) for sprite in scene.distractors),
        camera=scene.camera[::-1].copy(),
    )
