"""Draw scenes: every factor from its own distribution, as a pure function of (kind, index, split, seed, options)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmjepa.data.sprites.appearance import APPEARANCE_CLASSES, COLOUR_NAMES, SHAPE_NAMES, TEXTURES, Appearance
from mmjepa.data.sprites.motion import MOTION_CLASSES, draw_movements, movement_path
from mmjepa.data.sprites.nuisances import World, draw_distractors, draw_other, draw_world, make_sprite
from mmjepa.data.sprites.options import SceneOptions
from mmjepa.data.sprites.relations import RELATION_CLASSES, TEMPLATES, draw_timing, place
from mmjepa.data.sprites.scene import Scene, Sprite, pick, random_key, reversed_scene

CLASSES = {"appearance": APPEARANCE_CLASSES, "motion": len(MOTION_CLASSES), "relations": len(RELATION_CLASSES)}
TRAIN = "train"


@dataclass(frozen=True)
class _Cast:
    """The part of a scene that depends on its class."""

    objects: tuple[Sprite, ...]
    label_name: str
    factors: dict[str, Any]
    held_out: bool


def draw_scene(kind: str, index: int, split: str = TRAIN, seed: int = 0, options: SceneOptions | None = None) -> Scene:
    """Draw scene ``index`` of a split: the same arguments always give the same scene.

    ``kind`` is one of "appearance" (a still), "motion" and "relations". Classes are balanced: each run of
    ``CLASSES[kind]`` consecutive indices holds every class once, in random order. Splits of different names and
    different seeds are independent. Appearance x motion combinations for which :func:`is_held_out` holds are left out
    of the split "train" and drawn like all others elsewhere.
    """
    options = SceneOptions() if options is None else options
    rng = np.random.default_rng([*random_key(kind, index, split, seed), 1])
    label = balanced_label(kind, index, split, seed)
    world = draw_world(rng, options, frames=1 if kind == "appearance" else options.frames)
    if kind == "appearance":
        cast = _cast_still(rng, label, world, options)
        distractors: tuple[Sprite, ...] = ()
        shared: dict[str, Any] = {}
    else:
        cast = (_cast_motion if kind == "motion" else _cast_relation)(rng, label, split, world, options)
        distractors = draw_distractors(rng, cast.objects, world, options)
        shared = {"speed": world.speed_name, "distractors": len(distractors)}
    scene = Scene(
        kind=kind,
        split=split,
        seed=seed,
        index=index,
        label=label,
        label_name=cast.label_name,
        size=options.size,
        fps=options.fps,
        objects=cast.objects,
        distractors=distractors,
        background=world.background,
        camera=world.camera,
        factors=cast.factors | shared | {"pattern": world.background.pattern},
        held_out=cast.held_out,
    )
    return reversed_scene(scene) if cast.factors.get("reversed") else scene


def is_held_out(appearance: Appearance, motion: int) -> bool:
    """Whether a combination never occurs in train: one in ten, equally many for every shape, colour and motion.

    The rule is a Latin square over shape, (colour, texture) and motion, so that leaving the combinations out makes no
    two factors dependent: given the motion, every shape still goes with every colour but one, each as often.
    """
    return (SHAPE_NAMES.index(appearance.shape) + 3 * appearance.pair_index + motion) % 10 == 0


def balanced_label(kind: str, index: int, split: str, seed: int) -> int:
    """The class of scene ``index``: blocks of consecutive indices are random permutations of all classes."""
    block, place_in_block = divmod(index, CLASSES[kind])
    order = np.random.default_rng([*random_key(kind, block, split, seed), 0]).permutation(CLASSES[kind])
    return int(order[place_in_block])


def _cast_still(rng: np.random.Generator, label: int, world: World, options: SceneOptions) -> _Cast:
    appearance = Appearance.from_index(label)
    radius = float(rng.uniform(0.14, 0.34) * options.size)
    path = rng.uniform(radius, options.size - radius, size=(1, 2))
    sprite = make_sprite(rng, appearance, radius, path, np.full(1, 3, dtype=np.int8), world, options)
    return _Cast((sprite,), appearance.name, _appearance_factors(appearance), held_out=False)


def _cast_motion(rng: np.random.Generator, label: int, split: str, world: World, options: SceneOptions) -> _Cast:
    appearance = _draw_appearance(rng, label, split, SHAPE_NAMES)
    movements = draw_movements(rng, label, world.speed, options.frames)
    path = rng.uniform(0, options.size, size=2) + movement_path(movements, options.frames) - world.camera_shift
    depth = np.full(options.frames, 3, dtype=np.int8)
    sprite = make_sprite(rng, appearance, float(rng.uniform(8.0, 11.0)), path, depth, world, options)
    factors = _appearance_factors(appearance) | {
        "directions": list(movements.directions),
        "turn_frames": [round(turn, 2) for turn in movements.turns],
    }
    name = ", then ".join(movements.directions)
    return _Cast((sprite,), name, factors, is_held_out(appearance, label))


def _cast_relation(rng: np.random.Generator, label: int, split: str, world: World, options: SceneOptions) -> _Cast:
    """The even class of the pair, drawn forwards; :func:`draw_scene` turns the odd ones around."""
    template = TEMPLATES[label // 2]
    subject = _draw_appearance(rng, label, split, template.subject_shapes or SHAPE_NAMES)
    other = draw_other(rng, subject, template.other_shapes or SHAPE_NAMES)
    timing = draw_timing(rng, world.speed, options.speeds[-1], options.frames)
    poses = template.draw(rng, timing, options.frames, (subject.shape, other.shape))
    paths = place(rng, poses, options.size, options.camera_drift)
    sprites = tuple(
        replace(
            make_sprite(rng, look, pose.radius, path - world.camera_shift, pose.depth, world, options),
            outline=pose.outline,
        )
        for look, pose, path in zip((subject, other), poses, paths, strict=True)
    )
    factors = _appearance_factors(subject) | {"template": label // 2, "reversed": bool(label % 2)}
    factors |= {f"other_{name}": value for name, value in _appearance_factors(other).items()}
    return _Cast(sprites, RELATION_CLASSES[label], factors, is_held_out(subject, label))


def _draw_appearance(rng: np.random.Generator, motion: int, split: str, shapes: tuple[str, ...]) -> Appearance:
    """A uniform appearance among the allowed shapes; in train only combinations that are not held out."""
    while True:
        appearance = Appearance(pick(rng, shapes), pick(rng, COLOUR_NAMES), pick(rng, TEXTURES))
        if split != TRAIN or not is_held_out(appearance, motion):
            return appearance


def _appearance_factors(appearance: Appearance) -> dict[str, Any]:
    return {
        "appearance": appearance.index,
        "shape": appearance.shape,
        "colour": appearance.colour,
        "texture": appearance.texture,
    }
