"""Captions: a small grammar over what a scene shows, and hard negatives that differ in one respect only.

A sentence is a pure function of (style, voice, content). The voice fixes which synonym every slot takes, so that the
same style and voice over other content give the same sentence about another thing or another motion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmjepa.data.sprites.appearance import COLOUR_NAMES, SHAPE_NAMES, TEXTURES, Appearance
from mmjepa.data.sprites.lexicon import (
    COLOUR_WORDS,
    DIRECTION_WORDS,
    GROUND_WORDS,
    MOVE_WORDS,
    RELATION_WORDS,
    SHAPE_WORDS,
    SPEED_WORDS,
    TEXTURE_WORDS,
)
from mmjepa.data.sprites.motion import MOTION_CLASSES
from mmjepa.data.sprites.relations import RELATION_CLASSES, TEMPLATES
from mmjepa.data.sprites.scene import Scene, pick

_SLOTS = 16  # independent choices of one sentence


@dataclass(frozen=True)
class Content:
    """What a sentence speaks of."""

    kind: str
    label: int
    appearances: tuple[Appearance, ...]  # subject first
    speed: str = ""
    ground: str = "plain"


@dataclass(frozen=True)
class Voice:
    """One uniform number per slot; a slot with n synonyms takes number floor(n * u)."""

    uniforms: tuple[float, ...]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Voice:
        """A random voice."""
        return cls(tuple(float(value) for value in rng.uniform(size=_SLOTS)))

    def pick(self, slot: int, synonyms: Sequence[str]) -> str:
        """The synonym that this voice uses in a slot."""
        return synonyms[int(self.uniforms[slot] * len(synonyms))]


Style = Callable[[Content, Voice], str]


def describe(scene: Scene, count: int) -> tuple[list[str], dict[str, str]]:
    """``count`` different captions of a scene, and its hard negatives by name.

    The hard negatives are the first caption with the motion swapped for another one ("motion_swapped"; for relations
    the time-reversed one; not for stills) or the subject's shape and colour for others ("appearance_swapped").
    """
    rng = np.random.default_rng([*scene.random_key, 2])
    content = content_of(scene)
    styles = STYLES[scene.kind]
    order = rng.permutation(len(styles))
    first_voice = Voice.draw(rng)
    captions = [styles[order[0]](content, first_voice)]
    while len(captions) < count:
        caption = styles[order[len(captions) % len(styles)]](content, Voice.draw(rng))
        if caption not in captions:
            captions.append(caption)
    swapped = {"appearance_swapped": _swap_appearance(content, rng)}
    if scene.kind != "appearance":
        swapped["motion_swapped"] = _swap_motion(content, rng)
    return captions, {name: styles[order[0]](other, first_voice) for name, other in swapped.items()}


def content_of(scene: Scene) -> Content:
    """What a caption of the scene may tell."""
    return Content(
        kind=scene.kind,
        label=scene.label,
        appearances=tuple(sprite.appearance for sprite in scene.objects),
        speed=str(scene.factors.get("speed", "")),
        ground="plain" if scene.background.strength == 0 else scene.background.pattern,
    )


def _swap_appearance(content: Content, rng: np.random.Generator) -> Content:
    """Another subject: a shape and a colour that none of the objects has."""
    shapes: tuple[str, ...] = SHAPE_NAMES
    if content.kind == "relations":
        shapes = TEMPLATES[content.label // 2].subject_shapes or SHAPE_NAMES
    taken_shapes = {look.shape for look in content.appearances}
    taken_colours = {look.colour for look in content.appearances}
    subject = Appearance(
        pick(rng, [shape for shape in shapes if shape not in taken_shapes]),
        pick(rng, [colour for colour in COLOUR_NAMES if colour not in taken_colours]),
        pick(rng, TEXTURES),
    )
    return replace(content, appearances=(subject, *content.appearances[1:]))


def _swap_motion(content: Content, rng: np.random.Generator) -> Content:
    if content.kind == "relations":
        return replace(content, label=content.label ^ 1)
    shift = int(rng.integers(1, len(MOTION_CLASSES)))
    return replace(content, label=(content.label + shift) % len(MOTION_CLASSES))


def _thing(look: Appearance, voice: Voice, slot: int, size: str = "") -> str:
    """A noun phrase without article; takes four slots."""
    shape = voice.pick(slot, SHAPE_WORDS[look.shape])
    colour = voice.pick(slot + 1, COLOUR_WORDS[look.colour])
    texture = voice.pick(slot + 2, TEXTURE_WORDS[look.texture])
    return size + voice.pick(slot + 3, (f"{texture} {colour} {shape}", f"{colour} {texture} {shape}"))


def _directions(content: Content, voice: Voice) -> tuple[str, str, str]:
    first, second, third = (voice.pick(8, DIRECTION_WORDS[name]) for name in MOTION_CLASSES[content.label])
    return first, second, third


def _speed(content: Content, voice: Voice) -> str:
    return voice.pick(9, SPEED_WORDS[content.speed])


def _relation(content: Content, voice: Voice) -> tuple[str, str, str, str]:
    """Subject with article, predicate, first state, later state."""
    words = RELATION_WORDS[RELATION_CLASSES[content.label]]
    subject, other = content.appearances
    thing, target = _thing(subject, voice, 0, words.sizes[0]), "a " + _thing(other, voice, 4, words.sizes[1])
    return f"a {thing}", voice.pick(8, words.verbs).format(o=target), words.first.format(o=target), words.then


def _motion_list(content: Content, voice: Voice) -> str:
    first, second, third = _directions(content, voice)
    thing, verb = _thing(content.appearances[0], voice, 0), voice.pick(10, MOVE_WORDS)
    return f"a {thing} {verb} {first}, then {second}, then {third}, {_speed(content, voice)}"


def _motion_first(content: Content, voice: Voice) -> str:
    first, second, third = _directions(content, voice)
    thing, verb = _thing(content.appearances[0], voice, 0), voice.pick(10, MOVE_WORDS)
    return f"first a {thing} {verb} {first} {_speed(content, voice)}, then {second} and finally {third}"


def _motion_before(content: Content, voice: Voice) -> str:
    first, second, third = _directions(content, voice)
    thing, verb = _thing(content.appearances[0], voice, 0), voice.pick(10, MOVE_WORDS)
    return f"{_speed(content, voice)} a {thing} {verb} {first}, after that {second}, and in the end {third}"


def _motion_path(content: Content, voice: Voice) -> str:
    first, second, third = _directions(content, voice)
    thing = _thing(content.appearances[0], voice, 0)
    return f"{first}, then {second}, then {third}: the path that a {thing} takes {_speed(content, voice)}"


def _relation_plain(content: Content, voice: Voice) -> str:
    subject, predicate, _, _ = _relation(content, voice)
    return f"{subject} {predicate} {_speed(content, voice)}"


def _relation_speed_first(content: Content, voice: Voice) -> str:
    subject, predicate, _, _ = _relation(content, voice)
    return f"{_speed(content, voice)} {subject} {predicate}"


def _relation_states(content: Content, voice: Voice) -> str:
    subject, _, first, then = _relation(content, voice)
    return f"first {subject} {first}, then it {then}; this happens {_speed(content, voice)}"


def _relation_clip(content: Content, voice: Voice) -> str:
    subject, predicate, _, _ = _relation(content, voice)
    start = voice.pick(10, ("a clip in which", "a video where", "we see how"))
    return f"{start} {subject} {predicate} {_speed(content, voice)}"


def _still_plain(content: Content, voice: Voice) -> str:
    return f"a {_thing(content.appearances[0], voice, 0)} on {voice.pick(8, GROUND_WORDS[content.ground])}"


def _still_picture(content: Content, voice: Voice) -> str:
    start = voice.pick(10, ("a picture of", "an image of", "a still of"))
    return f"{start} a {_thing(content.appearances[0], voice, 0)}"


def _still_ground_first(content: Content, voice: Voice) -> str:
    return f"on {voice.pick(8, GROUND_WORDS[content.ground])} lies a {_thing(content.appearances[0], voice, 0)}"


def _still_there_is(content: Content, voice: Voice) -> str:
    start = voice.pick(10, ("there is", "this is", "one sees"))
    return f"{start} a {_thing(content.appearances[0], voice, 0)}"


STYLES: dict[str, tuple[Style, ...]] = {
    "appearance": (_still_plain, _still_picture, _still_ground_first, _still_there_is),
    "motion": (_motion_list, _motion_first, _motion_before, _motion_path),
    "relations": (_relation_plain, _relation_speed_first, _relation_states, _relation_clip),
}
