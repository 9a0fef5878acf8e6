"""The words of the captions. Every entry is a list of synonyms; the grammar picks among them."""

from __future__ import annotations

from dataclasses import dataclass

SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "disc"),
    "ring": ("ring", "hoop"),
    "square": ("square", "box"),
    "triangle": ("triangle", "wedge"),
    "star": ("star", "five-pointed star"),
    "cross": ("cross", "plus sign"),
    "heart": ("heart", "heart shape"),
    "crescent": ("crescent", "moon"),
    "bar": ("bar", "stick"),
    "hourglass": ("hourglass", "bow tie"),
}
COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "scarlet"),
    "yellow": ("yellow", "golden"),
    "green": ("green", "jade"),
    "blue": ("blue", "cobalt"),
    "purple": ("purple", "violet"),
}
TEXTURE_WORDS: dict[str, tuple[str, ...]] = {"plain": ("plain", "solid"), "striped": ("striped", "stripy")}
SPEED_WORDS: dict[str, tuple[str, ...]] = {
    "slow": ("slowly", "at a low speed", "without hurry"),
    "medium": ("at a medium speed", "at a moderate pace", "neither slowly nor fast"),
    "fast": ("quickly", "at a high speed", "in a hurry"),
}
GROUND_WORDS: dict[str, tuple[str, ...]] = {
    "plain": ("a plain background", "an empty ground"),
    "clouds": ("a cloudy background", "a blurry ground"),
    "grain": ("a grainy background", "a noisy ground"),
    "stripes": ("a background of stripes", "a lined ground"),
    "checks": ("a chequered background", "a ground of checks"),
}
DIRECTION_WORDS: dict[str, tuple[str, ...]] = {
    "right": ("right", "to the right"),
    "left": ("left", "to the left"),
    "up": ("up", "upwards"),
    "down": ("down", "downwards"),
}
MOVE_WORDS = ("moves", "goes", "travels", "glides")


@dataclass(frozen=True)
class RelationWords:
    """How a relation is said. ``{o}`` stands for the second object.

    ``verbs`` are whole predicates; ``first`` and ``then`` tell the same as an order of two states.
    ``sizes`` are adjectives of the two objects, where a template needs them to say who is who.
    """

    verbs: tuple[str, str, str]
    first: str
    then: str
    sizes: tuple[str, str] = ("", "")


_REGION = ("", "large outlined ")
_CHASE = ("large ", "small ")

RELATION_WORDS: dict[str, RelationWords] = {
    "approaching": RelationWords(
        ("approaches {o}", "moves towards {o}", "comes closer to {o}"), "is far from {o}", "is close to it"
    ),
    "leaving": RelationWords(
        ("departs from {o}", "moves away from {o}", "gets farther from {o}"), "is close to {o}", "is far from it"
    ),
    "covering": RelationWords(
        ("covers {o}", "moves on top of {o} and hides it", "slides over {o} until nothing of it is seen"),
        "is beside {o}",
        "lies on top of it and hides it",
    ),
    "uncovering": RelationWords(
        ("uncovers {o}", "moves off {o} and reveals it", "slides off {o} until all of it is seen"),
        "lies on top of {o} and hides it",
        "is beside it",
    ),
    "entering": RelationWords(
        ("enters {o}", "moves into {o}", "goes from outside to inside {o}"), "is outside {o}", "is inside it", _REGION
    ),
    "exiting": RelationWords(
        ("exits {o}", "moves out of {o}", "goes from inside to outside {o}"), "is inside {o}", "is outside it", _REGION
    ),
    "hiding behind": RelationWords(
        ("hides behind {o}", "disappears behind {o}", "slips behind {o} until it is out of sight"),
        "is seen beside {o}",
        "is hidden behind it",
    ),
    "emerging from behind": RelationWords(
        ("emerges from behind {o}", "appears from behind {o}", "slips out from behind {o} until it is in sight"),
        "is hidden behind {o}",
        "is seen beside it",
    ),
    "chasing": RelationWords(
        ("chases {o}", "runs after {o}", "follows {o}"), "sets off behind {o}", "stays behind it", _CHASE
    ),
    "running ahead of": RelationWords(
        ("is chased by {o}", "runs ahead of {o}", "leads {o}"), "sets off ahead of {o}", "stays ahead of it", _CHASE
    ),
    "circling clockwise": RelationWords(
        ("circles {o} clockwise", "goes clockwise around {o}", "swings around {o} in the sense of a clock"),
        "is on one side of {o}",
        "has gone clockwise to the other side",
    ),
    "circling anticlockwise": RelationWords(
        (
            "circles {o} anticlockwise",
            "goes anticlockwise around {o}",
            "swings around {o} against the sense of a clock",
        ),
        "is on one side of {o}",
        "has gone anticlockwise to the other side",
    ),
    "speeding up past": RelationWords(
        ("speeds up past {o}", "passes {o} faster and faster", "accelerates as it passes {o}"),
        "creeps up to {o}",
        "races away from it",
    ),
    "slowing down past": RelationWords(
        ("slows down past {o}", "passes {o} slower and slower", "brakes as it passes {o}"),
        "races up to {o}",
        "creeps away from it",
    ),
    "passing in front then behind": RelationWords(
        (
            "passes in front of {o} and returns behind it",
            "crosses over {o} and comes back underneath it",
            "goes before {o} and then back behind it",
        ),
        "passes in front of {o}",
        "passes behind it",
    ),
    "passing behind then in front": RelationWords(
        (
            "passes behind {o} and returns in front of it",
            "crosses under {o} and comes back on top of it",
            "goes behind {o} and then back before it",
        ),
        "passes behind {o}",
        "passes in front of it",
    ),
}
