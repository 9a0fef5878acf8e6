"""Draw scenes: every factor from its own distribution, as a pure function of (kind, index, split, seed, options)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmjepa.data.sprites.appearance import (
    APPEARANCE_CLASSES,
    COLOUR_NAMES,
    COLOURS,
    SHAPE_NAMES,
    TEXTURES,
    Appearance,
    luminance,
    with_luminance,
)
from mmjepa.data.sprites.motion import MOTION_CLASSES, draw_movements, movement_path
from mmjepa.data.sprites.options import SPEED_NAMES, SceneOptions
from mmjepa.data.sprites.relations import RELATION_CLASSES, TEMPLATES, draw_timing, place
from mmjepa.data.sprites.render import PATTERNS
from mmjepa.data.sprites.scene import KINDS, Background, Scene, Sprite, reversed_scene

FloatArray = NDArray[np.float32]

CLASSES = {"appearance": APPEARANCE_CLASSES, "motion": len(MOTION_CLASSES), "relations": len(RELATION_CLASSES)}
TRAIN = "train"


def draw_scene(kind: str, index: int, split: str = TRAIN, seed: int = 0, options: SceneOptions | None = None) -> Scene:
    """Draw scene ``index`` of a split: the same arguments always give the same scene.

    ``kind`` is one of "appearance" (a still), "motion" and "relations". Classes are balanced: each run of
    ``CLASSES[kind]`` consecutive indices holds every class once, in random order. Splits of different names and
    different seeds are independent. Appearance x motion combinations for which :func:`is_held_out` holds are left out
    of the split "train" and drawn like all others elsewhere.
    """
    options = SceneOptions() if options is None else options
    rng = np.random.default_rng([seed, KINDS.index(kind), _split_key(split), 1, index])
    label = _balanced_label(kind, index, split, seed)
    world = _draw_world(rng, options, frames=1 if kind == "appearance" else options.frames)
    drawers = {"appearance": _draw_still, "motion": _draw_motion, "relations": _draw_relation}
    return drawers[kind](rng, label, index, split, world, options)


def is_held_out(appearance: Appearance, motion: int) -> bool:
    """Whether a combination never occurs in train: one in ten, equally many for every shape, colour and motion.

    The rule is a Latin square over shape, (colour, texture) and motion, so that leaving the combinations out makes no
    two factors dependent: given the motion, every shape still goes with every colour but one, each as often.
    """
    return (SHAPE_NAMES.index(appearance.shape) + 3 * appearance.pair_index + motion) % 10 == 0


def _split_key(split: str) -> int:
    return int.from_bytes(hashlib.sha256(split.encode()).digest()[:6], "big")


def _balanced_label(kind: str, index: int, split: str, seed: int) -> int:
    classes = CLASSES[kind]
    block, place_in_block = divmod(index, classes)
    order = np.random.default_rng([seed, KINDS.index(kind), _split_key(split), 0, block]).permutation(classes)
    return int(order[place_in_block])


@dataclass(frozen=True)
class _World:
    """What is drawn before and independently of the class."""

    background: Background
    camera: FloatArray
    distractor_count: int
    speed_name: str
    speed: float


def _draw_world(rng: np.random.Generator, options: SceneOptions, frames: int) -> _World:
    strength = float(rng.choice(options.background_levels))
    grey = with_luminance(1 + 0.1 * rng.normal(size=3).clip(-2, 2).astype(np.float32), rng.uniform(0.15, 0.55))
    background = Background(strength, _rgb(grey), str(rng.choice(PATTERNS)), int(rng.integers(2**31)))
    heading, pace = rng.uniform(0, 2 * np.pi), options.camera_drift * np.sqrt(rng.uniform())
    velocity = pace * np.array([np.cos(heading), np.sin(heading)])
    camera = rng.uniform(0, options.size, size=2) + np.outer(np.arange(frames), velocity)
    speed = int(rng.integers(len(SPEED_NAMES)))
    return _World(
        background,
        camera.astype(np.float32),
        int(rng.choice(options.distractor_counts)),
        SPEED_NAMES[speed],
        float(options.speeds[speed]),
    )


def _draw_still(
    rng: np.random.Generator, label: int, index: int, split: str, world: _World, options: SceneOptions
) -> Scene:
    appearance = Appearance.from_index(label)
    radius = float(rng.uniform(9.0, 0.34 * options.size))
    path = rng.uniform(radius, options.size - radius, size=(1, 2)).astype(np.float32)
    sprite = _sprite(rng, appearance, radius, path, np.full(1, 3, dtype=np.int8), world, options)
    factors = _appearance_factors(appearance) | {"scale": round(radius, 2)}
    return _scene("appearance", label, appearance.name, index, split, (sprite,), (), world, factors, False, options)


def _draw_motion(
    rng: np.random.Generator, label: int, index: int, split: str, world: _World, options: SceneOptions
) -> Scene:
    appearance = _draw_appearance(rng, label, split, ())
    movements = draw_movements(rng, label, world.speed, options.frames)
    path = movement_path(movements, options.frames) + rng.uniform(0, options.size, size=2).astype(np.float32)
    path = path - (world.camera - world.camera[0])
    depth = np.full(options.frames, 3, dtype=np.int8)
    sprite = _sprite(rng, appearance, float(rng.uniform(8.0, 11.0)), path, depth, world, options)
    distractors = _draw_distractors(rng, (appearance,), world, options)
    factors = _appearance_factors(appearance) | {
        "directions": list(movements.directions),
        "turn_frames": [round(turn, 2) for turn in movements.turns],
    }
    name = ", then ".join(movements.directions)
    held_out = is_held_out(appearance, label)
    return _scene("motion", label, name, index, split, (sprite,), distractors, world, factors, held_out, options)


def _draw_relation(
    rng: np.random.Generator, label: int, index: int, split: str, world: _World, options: SceneOptions
) -> Scene:
    template, backwards = TEMPLATES[label // 2], bool(label % 2)
    subject = _draw_appearance(rng, label, split, template.subject_shapes)
    other = _draw_other(rng, subject, template.other_shapes)
    timing = draw_timing(rng, world.speed, options.speeds[-1], options.frames)
    poses = template.draw(rng, timing, options.frames, (subject.shape, other.shape))
    paths = place(rng, poses, options.size, options.camera_drift)
    camera = world.camera - world.camera[0]
    sprites = tuple(
        _sprite(rng, look, pose.radius, (path - camera).astype(np.float32), pose.depth, world, options, pose.outline)
        for look, pose, path in zip((subject, other), poses, paths, strict=True)
    )
    distractors = _draw_distractors(rng, (subject, other), world, options)
    factors = (
        _appearance_factors(subject)
        | {f"other_{name}": value for name, value in _appearance_factors(other).items()}
        | {"template": label // 2, "reversed": backwards}
    )
    held_out, name = is_held_out(subject, label), RELATION_CLASSES[label]
    scene = _scene("relations", label, name, index, split, sprites, distractors, world, factors, held_out, options)
    return reversed_scene(scene) if backwards else scene


def _scene(
    kind: str,
    label: int,
    label_name: str,
    index: int,
    split: str,
    objects: tuple[Sprite, ...],
    distractors: tuple[Sprite, ...],
    world: _World,
    factors: dict[str, Any],
    held_out: bool,
    options: SceneOptions,
) -> Scene:
    shared = {"background": world.background.strength, "pattern": world.background.pattern}
    if kind != "appearance":
        shared |= {"speed": world.speed_name, "distractors": len(distractors)}
    return Scene(
        kind=kind,
        split=split,
        index=index,
        label=label,
        label_name=label_name,
        size=options.size,
        fps=options.fps,
        objects=objects,
        distractors=distractors,
        background=world.background,
        camera=world.camera,
        factors=factors | shared,
        held_out=held_out,
    )


def _draw_appearance(rng: np.random.Generator, motion: int, split: str, shapes: tuple[str, ...]) -> Appearance:
    """A uniform appearance among the allowed shapes; in train only combinations that are not held out."""
    while True:
        appearance = Appearance(
            str(rng.choice(shapes or SHAPE_NAMES)), str(rng.choice(COLOUR_NAMES)), str(rng.choice(TEXTURES))
        )
        if split != TRAIN or not is_held_out(appearance, motion):
            return appearance


def _draw_other(rng: np.random.Generator, subject: Appearance, shapes: tuple[str, ...]) -> Appearance:
    """A second object: another colour and another shape than the first, so that a caption can tell them apart."""
    return Appearance(
        str(rng.choice([shape for shape in shapes or SHAPE_NAMES if shape != subject.shape])),
        str(rng.choice([colour for colour in COLOUR_NAMES if colour != subject.colour])),
        str(rng.choice(TEXTURES)),
    )


def _draw_distractors(
    rng: np.random.Generator, taken: tuple[Appearance, ...], world: _World, options: SceneOptions
) -> tuple[Sprite, ...]:
    """Small objects of other shapes and colours, behind the main ones, standing still or creeping straight on."""
    shapes = [shape for shape in SHAPE_NAMES if shape not in {look.shape for look in taken}]
    colours = [colour for colour in COLOUR_NAMES if colour not in {look.colour for look in taken}]
    sprites = []
    frames = np.arange(options.frames)
    for _ in range(world.distractor_count):
        look = Appearance(str(rng.choice(shapes)), str(rng.choice(colours)), str(rng.choice(TEXTURES)))
        heading, pace = rng.uniform(0, 2 * np.pi), options.camera_drift * float(rng.integers(2))
        path = rng.uniform(0, options.size, size=2) + np.outer(
            frames, pace * np.array([np.cos(heading), np.sin(heading)])
        )
        path = (path - (world.camera - world.camera[0])).astype(np.float32)
        depth = np.zeros(options.frames, dtype=np.int8)
        sprites.append(_sprite(rng, look, float(rng.uniform(3.5, 4.5)), path, depth, world, options))
    return tuple(sprites)


def _sprite(
    rng: np.random.Generator,
    appearance: Appearance,
    radius: float,
    path: FloatArray,
    depth: NDArray[np.int8],
    world: _World,
    options: SceneOptions,
    outline: float = 0.0,
) -> Sprite:
    own = np.array(COLOURS[appearance.colour], dtype=np.float32)
    brightness = luminance(own) * rng.uniform(0.8, 1.05)
    if options.match_brightness:
        strength = world.background.strength
        brightness = (1 - strength) * brightness + strength * luminance(np.array(world.background.rgb))
    rgb = _rgb(with_luminance(own, float(np.clip(brightness, 0.03, 0.97))))
    return Sprite(appearance, rgb, float(radius), float(rng.uniform(0, 2 * np.pi)), path, depth, outline)


def _rgb(colour: FloatArray) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in np.clip(colour, 0.0, 1.0))
    return red, green, blue


def _appearance_factors(appearance: Appearance) -> dict[str, Any]:
    return {
        "appearance": appearance.index,
        "shape": appearance.shape,
        "colour": appearance.colour,
        "texture": appearance.texture,
    }
