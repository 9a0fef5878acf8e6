"""Captions say what is shown; hard negatives say it of another thing or of another motion, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from mmjepa.data.sprites.captions import describe
from mmjepa.data.sprites.draw import draw_scene
from mmjepa.data.sprites.lexicon import COLOUR_WORDS, DIRECTION_WORDS, SHAPE_WORDS, SPEED_WORDS, TEXTURE_WORDS

Truths = list[dict[str, Any]]
APPEARANCE_TOKENS = {
    token
    for table in (SHAPE_WORDS, COLOUR_WORDS, TEXTURE_WORDS)
    for synonyms in table.values()
    for synonym in synonyms
    for token in synonym.split()
}
DIRECTION_TOKENS = {"right", "left", "up", "down", "upwards", "downwards", "to", "the"}


def _tokens(text: str) -> list[str]:
    return text.replace(",", " ,").replace(":", " :").replace(";", " ;").split()


def _names(text: str, synonyms: tuple[str, ...]) -> bool:
    return any(
        f" {synonym} " in f" {text.replace(',', ' ').replace(':', ' ').replace(';', ' ')} " for synonym in synonyms
    )


def test_every_caption_names_all_objects_and_the_speed(motion_test: Truths, relations_test: Truths) -> None:
    for truth in motion_test + relations_test:
        assert len(set(truth["captions"])) == len(truth["captions"]) == 4
        for caption in truth["captions"]:
            assert _names(caption, SPEED_WORDS[truth["factors"]["speed"]])
            for item in truth["objects"]:
                assert _names(caption, SHAPE_WORDS[item["shape"]])
                assert _names(caption, COLOUR_WORDS[item["colour"]])
                assert _names(caption, TEXTURE_WORDS[item["texture"]])


def test_motion_captions_name_the_three_directions_in_order(motion_test: Truths) -> None:
    name_of = {word.split()[-1]: name for name, words in DIRECTION_WORDS.items() for word in words}
    for truth in motion_test:
        for caption in truth["captions"]:
            named = [name_of[token] for token in _tokens(caption) if token in name_of]
            assert named == truth["factors"]["directions"]


def test_stills_are_captioned_by_their_class() -> None:
    for index in range(100):
        scene = draw_scene("appearance", index)
        captions, negatives = describe(scene, 4)
        look = scene.objects[0].appearance
        assert all(_names(caption, SHAPE_WORDS[look.shape]) for caption in captions)
        assert all(_names(caption, COLOUR_WORDS[look.colour]) for caption in captions)
        assert set(negatives) == {"appearance_swapped"}


def test_appearance_swapped_differs_in_the_subject_only(motion_test: Truths, relations_test: Truths) -> None:
    for truth in motion_test + relations_test:
        caption, swapped = _tokens(truth["captions"][0]), _tokens(truth["hard_negatives"]["appearance_swapped"])
        assert [t for t in caption if t not in APPEARANCE_TOKENS] == [t for t in swapped if t not in APPEARANCE_TOKENS]
        text, subject = truth["hard_negatives"]["appearance_swapped"], truth["objects"][0]
        assert not _names(text, SHAPE_WORDS[subject["shape"]])
        assert not _names(text, COLOUR_WORDS[subject["colour"]])
        for other in truth["objects"][1:]:
            assert _names(text, SHAPE_WORDS[other["shape"]])


def test_motion_swapped_keeps_the_things_and_changes_the_motion(motion_test: Truths, relations_test: Truths) -> None:
    for truth in motion_test + relations_test:
        caption, swapped = truth["captions"][0], truth["hard_negatives"]["motion_swapped"]
        assert caption != swapped
        kept = [[token for token in _tokens(text) if token in APPEARANCE_TOKENS] for text in (caption, swapped)]
        assert kept[0] == kept[1]
        assert _names(swapped, SPEED_WORDS[truth["factors"]["speed"]])
    for truth in motion_test:
        texts = truth["captions"][0], truth["hard_negatives"]["motion_swapped"]
        frames = [[token for token in _tokens(text) if token not in DIRECTION_TOKENS] for text in texts]
        assert frames[0] == frames[1]


def test_relations_are_negated_by_their_time_reversal(relations_test: Truths) -> None:
    """Over many clips, what is a caption of one class is a motion-swapped negative of its partner and of no other."""
    plain = [truth for truth in relations_test if truth["label_name"] in ("approaching", "leaving")]
    for truth in plain:
        closer = any(word in truth["captions"][0] for word in ("approaches", "towards", "closer", "is far from a"))
        closer_swapped = any(
            word in truth["hard_negatives"]["motion_swapped"]
            for word in ("approaches", "towards", "closer", "is far from a")
        )
        assert closer == (truth["label_name"] == "approaching")
        assert closer_swapped != closer


@pytest.mark.parametrize("kind", ["appearance", "motion", "relations"])
def test_as_many_different_captions_as_asked_for(kind: str) -> None:
    captions, _ = describe(draw_scene(kind, 5), 20)
    assert len(set(captions)) == 20
