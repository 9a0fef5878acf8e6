"""What scenes are drawn: repeatable, balanced, factorial, and with nothing in a single frame that tells the motion."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mmjepa.data.sprites.appearance import COLOUR_NAMES, SHAPE_NAMES, TEXTURES, Appearance
from mmjepa.data.sprites.draw import CLASSES, draw_scene, is_held_out
from mmjepa.data.sprites.options import SceneOptions
from mmjepa.data.sprites.samples import ground_truth
from mmjepa.errors import UserError

Truths = list[dict[str, Any]]
ALPHA = 1e-3  # the draws are fixed by their seed: a test that passes once passes always


def _independent(first: list[Any], second: list[Any]) -> float:
    """p-value of Pearson's test of independence of two lists of factor values."""
    rows, columns = sorted(set(map(str, first))), sorted(set(map(str, second)))
    table = np.zeros((len(rows), len(columns)))
    for one, other in zip(first, second, strict=True):
        table[rows.index(str(one)), columns.index(str(other))] += 1
    return float(stats.chi2_contingency(table).pvalue)


@settings(max_examples=20, deadline=None)
@given(kind=st.sampled_from(sorted(CLASSES)), index=st.integers(0, 10**6), seed=st.integers(0, 2**31))
def test_a_scene_is_a_function_of_its_arguments(kind: str, index: int, seed: int) -> None:
    truth = ground_truth(draw_scene(kind, index, "train", seed), captions=4)
    assert ground_truth(draw_scene(kind, index, "train", seed), captions=4) == truth
    for other in (draw_scene(kind, index + 1, "train", seed), draw_scene(kind, index, "test", seed)):
        assert ground_truth(other, captions=4)["camera"] != truth["camera"]


@pytest.mark.parametrize("kind", sorted(CLASSES))
def test_every_block_of_indices_holds_every_class_once(kind: str) -> None:
    blocks = [
        [draw_scene(kind, index).label for index in range(b * CLASSES[kind], (b + 1) * CLASSES[kind])] for b in (0, 5)
    ]
    assert sorted(blocks[0]) == sorted(blocks[1]) == list(range(CLASSES[kind]))
    assert blocks[0] != blocks[1]


def test_there_are_100_appearances_48_motions_and_16_relations(relations_test: Truths, motion_test: Truths) -> None:
    assert len({Appearance.from_index(index).name for index in range(100)}) == 100
    assert all(Appearance.from_index(index).index == index for index in range(100))
    assert len({truth["label_name"] for truth in motion_test}) == 48
    assert len({truth["label_name"] for truth in relations_test}) == 16


@pytest.mark.parametrize("factor", ["shape", "colour", "texture", "speed", "background", "pattern", "distractors"])
def test_appearance_and_nuisances_are_independent_of_the_motion(motion_test: Truths, factor: str) -> None:
    values = [truth["factors"] | {"background": truth["background"]} for truth in motion_test]
    drawn = [value[factor] for value in values]
    for place in range(3):
        assert _independent(drawn, [value["directions"][place] for value in values]) > ALPHA
    assert len(set(drawn)) > 1


def test_appearance_and_speed_are_independent_of_playing_direction(relations_test: Truths) -> None:
    for factor in ("shape", "colour", "texture", "speed", "other_shape", "other_colour"):
        for template in range(8):
            chosen = [truth["factors"] for truth in relations_test if truth["factors"]["template"] == template]
            assert _independent([f[factor] for f in chosen], [f["reversed"] for f in chosen]) > ALPHA / 50


def test_place_is_uniform_in_every_frame_whatever_the_motion(motion_test: Truths) -> None:
    places = np.array([truth["objects"][0]["positions"] for truth in motion_test])  # (N, T, 2)
    assert places.min() >= 0
    assert places.max() < 64
    directions = np.array([truth["factors"]["directions"] for truth in motion_test])
    for segment, direction, frame in itertools.product(range(3), ("right", "up"), (0, 15, 31)):
        chosen = places[directions[:, segment] == direction, frame]
        counts = np.histogram2d(chosen[:, 0], chosen[:, 1], bins=4, range=[[0, 64]] * 2)[0]
        assert stats.chisquare(counts.ravel()).pvalue > ALPHA
        for axis in range(2):
            assert stats.kstest(chosen[:, axis] / 64, "uniform").pvalue > ALPHA


def test_velocities_spell_the_class(motion_test: Truths) -> None:
    names = {(0, 1): "right", (0, -1): "left", (1, 1): "down", (1, -1): "up"}
    for truth in motion_test:
        velocity = np.array(truth["objects"][0]["velocities"])
        spelled = []
        for frame in (4, 15, 27):  # well inside the three segments
            axis = int(np.abs(velocity[frame]).argmax())
            spelled.append(names[axis, int(np.sign(velocity[frame, axis]))])
        assert ", then ".join(spelled) == truth["label_name"]
        assert spelled[1] != spelled[2]


def test_speed_is_the_same_in_all_directions() -> None:
    options = SceneOptions(camera_drift=0.0)
    speeds: dict[str, set[float]] = {}
    for index in range(96):
        truth = ground_truth(draw_scene("motion", index, options=options), captions=4)
        fastest = np.linalg.norm(truth["objects"][0]["velocities"], axis=1).max()
        speeds.setdefault(truth["factors"]["speed"], set()).add(round(float(fastest), 2))
    assert speeds == {"slow": {1.5}, "medium": {2.25}, "fast": {3.0}}


def test_held_out_combinations_occur_in_test_only(motion_test: Truths, relations_test: Truths) -> None:
    assert not any(draw_scene(kind, i).held_out for kind in ("motion", "relations") for i in range(300))
    assert 0.07 < np.mean([truth["held_out"] for truth in motion_test]) < 0.13
    assert any(truth["held_out"] for truth in relations_test)


def test_holding_out_leaves_pairs_of_factors_balanced() -> None:
    looks = [Appearance(*parts) for parts in itertools.product(SHAPE_NAMES, COLOUR_NAMES, TEXTURES)]
    for motion in range(48):
        out = [look for look in looks if is_held_out(look, motion)]
        assert set(Counter(look.shape for look in out).values()) == {1}
        assert set(Counter(look.colour for look in out).values()) == {2}


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 63},
        {"frames": 4},
        {"fps": 0},
        {"speeds": [2.0, 1.0, 0.5]},
        {"background_levels": [1.5]},
        {"distractor_counts": []},
        {"camera_drift": 0.8},
    ],
)
def test_impossible_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"scene.{next(iter(wrong))}="):
        SceneOptions(**wrong)
