"""Pixels: objects are where the ground truth says, the world is a torus, the ground has the strength asked for."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from mmjepa.data.sprites.appearance import SHAPES, Appearance, coverage
from mmjepa.data.sprites.draw import draw_scene
from mmjepa.data.sprites.options import SceneOptions
from mmjepa.data.sprites.render import PATTERNS, render_clip
from mmjepa.data.sprites.scene import Background, Scene

EMPTY = SceneOptions(background_levels=[0.0], distractor_counts=[0], match_brightness=False)
REC709 = np.array([0.2126, 0.7152, 0.0722])


def _with_look(scene: Scene, shape: str, colour: str = "red") -> Scene:
    sprite = replace(scene.objects[0], appearance=Appearance(shape, colour, "plain"))
    return replace(scene, objects=(sprite,))


def _moved(scene: Scene, shift: tuple[float, float]) -> Scene:
    sprite = scene.objects[0]
    return replace(scene, objects=(replace(sprite, path=sprite.path + np.float32(shift)),))


@pytest.mark.parametrize("index", range(6))
def test_the_centre_of_mass_follows_the_ground_truth(index: int) -> None:
    scene = _with_look(draw_scene("motion", index, options=EMPTY), "circle")
    weight = np.abs(render_clip(scene).astype(float) - render_clip(replace(scene, objects=()))).sum(-1)
    phase = np.exp(2j * np.pi * (np.arange(64) + 0.5) / 64)  # mean on a circle: the torus has no edge
    x = np.angle((weight.sum(1) * phase).sum(1)) * 64 / (2 * np.pi)
    y = np.angle((weight.sum(2) * phase).sum(1)) * 64 / (2 * np.pi)
    error = (np.stack([x, y], axis=1) - scene.objects[0].path + 32) % 64 - 32
    assert np.abs(error).max() < 0.1


def test_the_world_is_a_torus() -> None:
    scene = draw_scene("motion", 0, options=EMPTY)
    pixels = render_clip(scene)
    assert np.abs(render_clip(_moved(scene, (64.0, -128.0))).astype(int) - pixels).max() <= 1
    assert np.abs(render_clip(_moved(scene, (5.0, 9.0))).astype(int) - np.roll(pixels, (9, 5), axis=(1, 2))).max() <= 1


def test_a_circle_covers_its_area_at_any_sub_pixel_place() -> None:
    for place in (0.0, 0.3, 0.5):
        x = np.arange(-15, 16, dtype=np.float32) + np.float32(place)
        area = coverage("circle", x[None, :], x[:, None], radius=10.0, outline=0.0).sum()
        assert area == pytest.approx(np.pi * 9.2**2, rel=0.01)


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_shapes_are_anti_aliased_and_stay_inside_the_painted_window(shape: str) -> None:
    x = np.linspace(-1.5, 1.5, 601, dtype=np.float32) * 10
    alpha = coverage(shape, x[None, :], x[:, None], radius=10.0, outline=0.0)
    assert np.abs(np.diff(alpha, axis=0)).max() < 0.1  # 0.05 px steps: no jump at any edge
    reached = np.hypot(x[None, :], x[:, None])[alpha > 0].max()
    assert 9.0 < reached < 12.0
    assert 60 < alpha.sum() * 0.05**2 < 300  # square pixels of a sprite of radius 10


@pytest.mark.parametrize("pattern", PATTERNS)
def test_background_strength_grades_the_texture(pattern: str) -> None:
    scene = replace(draw_scene("motion", 1, options=EMPTY), objects=())
    spread = [
        render_clip(replace(scene, background=Background(strength, (0.5, 0.5, 0.5), pattern, 7)))[0].std()
        for strength in (0.0, 0.25, 0.5, 1.0)
    ]
    assert spread[0] == 0
    assert all(low + 3 < high for low, high in itertools.pairwise(spread))


def test_the_ground_drifts_with_the_camera() -> None:
    scene = replace(draw_scene("motion", 1, options=EMPTY), objects=())
    ground = Background(0.8, (0.4, 0.4, 0.4), "clouds", 11)
    camera = np.stack([np.arange(32.0), 2 * np.arange(32.0)], axis=1).astype(np.float32)
    clip = render_clip(replace(scene, background=ground, camera=camera))
    assert np.array_equal(clip[3], np.roll(clip[0], (-6, -3), axis=(0, 1)))


def test_on_a_strong_ground_objects_have_its_brightness() -> None:
    def contrast(match: bool) -> float:
        options = SceneOptions(background_levels=[1.0], match_brightness=match)
        scenes = [draw_scene("motion", index, options=options) for index in range(40)]
        return max(abs(float(REC709 @ (np.array(s.objects[0].rgb) - s.background.rgb))) for s in scenes)

    assert contrast(match=True) < 0.01
    assert contrast(match=False) > 0.2


def test_nearer_objects_hide_farther_ones() -> None:
    """The hidden object of the last frame of "covering" leaves no pixel."""
    index = next(i for i in range(16) if draw_scene("relations", i, options=EMPTY).label_name == "covering")
    scene = draw_scene("relations", index, options=EMPTY)
    without = replace(scene, objects=scene.objects[:1])
    assert np.array_equal(render_clip(scene)[-1], render_clip(without)[-1])
    assert not np.array_equal(render_clip(scene)[0], render_clip(without)[0])
