"""What a scene shows besides its class: ground, camera, speed, colours, distractors, and who appears."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmjepa.data.sprites.appearance import (
    COLOUR_NAMES,
    COLOURS,
    SHAPE_NAMES,
    TEXTURES,
    Appearance,
    luminance,
    with_luminance,
)
from mmjepa.data.sprites.options import SPEED_NAMES, SceneOptions
from mmjepa.data.sprites.render import PATTERNS
from mmjepa.data.sprites.scene import Background, Sprite, pick

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class World:
    """What is drawn before, and independently of, the class."""

    background: Background
    camera: FloatArray  # (T, 2) pixels
    distractor_count: int
    speed_name: str
    speed: float  # pixels per frame

    @property
    def camera_shift(self) -> FloatArray:
        """Camera position relative to the first frame, (T, 2) pixels."""
        return self.camera - self.camera[0]


def draw_world(rng: np.random.Generator, options: SceneOptions, frames: int) -> World:
    """Draw ground, camera path, speed and the number of distractors."""
    strength = pick(rng, options.background_levels)
    # Strength grades all of the ground: at 0 it is the same neutral grey in every clip, so that what tells clips apart
    # is what they show; from 0.5 on brightness and tint vary fully.
    variety = min(1.0, 2 * strength)
    tint = 1 + 0.1 * variety * rng.normal(size=3).clip(-2, 2)
    grey = with_luminance(tint.astype(np.float32), 0.35 + variety * rng.uniform(-0.2, 0.2))
    background = Background(strength, _rgb(grey), pick(rng, PATTERNS), int(rng.integers(2**31)))
    camera = rng.uniform(0, options.size, size=2) + drift_path(rng, options.camera_drift, frames)
    speed = int(rng.integers(len(SPEED_NAMES)))
    count = pick(rng, options.distractor_counts)
    return World(background, camera.astype(np.float32), count, SPEED_NAMES[speed], float(options.speeds[speed]))


def drift_path(rng: np.random.Generator, fastest: float, frames: int) -> NDArray[np.float64]:
    """Straight motion with a velocity uniform in the disc of radius ``fastest`` (pixels per frame), (T, 2).

    Isotropic, so that a drift and its time reversal are equally likely.
    """
    heading, pace = rng.uniform(0, 2 * np.pi), fastest * np.sqrt(rng.uniform())
    return np.outer(np.arange(frames), pace * np.array([np.cos(heading), np.sin(heading)]))


def draw_other(rng: np.random.Generator, subject: Appearance, shapes: tuple[str, ...]) -> Appearance:
    """A second object: another colour and another shape than the first, so that a caption can tell them apart."""
    return Appearance(
        pick(rng, [shape for shape in shapes if shape != subject.shape]),
        pick(rng, [colour for colour in COLOUR_NAMES if colour != subject.colour]),
        pick(rng, TEXTURES),
    )


def draw_distractors(
    rng: np.random.Generator, objects: tuple[Sprite, ...], world: World, options: SceneOptions
) -> tuple[Sprite, ...]:
    """Small sprites of other shapes and colours, behind the main ones, standing still or creeping straight on."""
    shapes = [shape for shape in SHAPE_NAMES if shape not in {sprite.appearance.shape for sprite in objects}]
    colours = [colour for colour in COLOUR_NAMES if colour not in {sprite.appearance.colour for sprite in objects}]
    frames = len(world.camera)
    sprites = []
    for _ in range(world.distractor_count):
        look = Appearance(pick(rng, shapes), pick(rng, colours), pick(rng, TEXTURES))
        creep = drift_path(rng, options.camera_drift * float(rng.integers(2)), frames)
        path = rng.uniform(0, options.size, size=2) + creep - world.camera_shift
        radius = float(rng.uniform(3.5, 4.5))
        sprites.append(make_sprite(rng, look, radius, path, np.zeros(frames, dtype=np.int8), world, options))
    return tuple(sprites)


def make_sprite(
    rng: np.random.Generator,
    appearance: Appearance,
    radius: float,
    path: NDArray[np.floating],
    depth: NDArray[np.int8],
    world: World,
    options: SceneOptions,
) -> Sprite:
    """A filled sprite with a random constant rotation; its colour is matched to the ground if the options say so."""
    own = np.array(COLOURS[appearance.colour], dtype=np.float32)
    brightness = luminance(own) * rng.uniform(0.8, 1.05)
    if options.match_brightness:
        strength = world.background.strength
        brightness = (1 - strength) * brightness + strength * luminance(np.array(world.background.rgb))
    rgb = _rgb(with_luminance(own, float(np.clip(brightness, 0.03, 0.97))))
    angle = float(rng.uniform(0, 2 * np.pi))
    return Sprite(appearance, rgb, float(radius), angle, path.astype(np.float32), depth)


def _rgb(colour: FloatArray) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in np.clip(colour, 0.0, 1.0))
    return red, green, blue
