"""From a scene to a stored sample: encoded pixels, and JSON with labels, captions and complete ground truth."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmjepa.data.samples import Sample
from mmjepa.data.sprites.captions import describe
from mmjepa.data.sprites.encoding import EncodingOptions, encode_clip, encode_still
from mmjepa.data.sprites.render import render_clip
from mmjepa.data.sprites.scene import Scene, Sprite


def make_sample(scene: Scene, captions: int, encoding: EncodingOptions) -> Sample:
    """The shard entry of a scene: an .mp4 clip or a .jpg still, with :func:`ground_truth` as its JSON."""
    pixels = render_clip(scene)
    key = f"{scene.kind}-{scene.split}-{scene.index:07d}"
    if scene.kind == "appearance":
        return Sample(key, encode_still(pixels[0], encoding), "jpg", ground_truth(scene, captions))
    return Sample(key, encode_clip(pixels, scene.fps, encoding), "mp4", ground_truth(scene, captions))


def ground_truth(scene: Scene, captions: int) -> dict[str, Any]:
    """Everything known about a scene, ready for JSON.

    Besides the fields that every data set has (label, label_name, captions, source, split): ``hard_negatives`` (see
    :func:`~mmjepa.data.sprites.captions.describe`), ``factors``, ``background`` (texture strength in [0, 1]),
    ``held_out``, ``objects`` (subject first) and ``distractors`` with place and velocity per frame, and ``camera``
    (T, 2). Places are in pixels on the screen, wrapped into [0, size); velocities in pixels per frame.
    """
    texts, negatives = describe(scene, captions)
    return {
        "label": scene.label,
        "label_name": scene.label_name,
        "captions": texts,
        "hard_negatives": negatives,
        "source": "sprites",
        "split": f"{scene.kind}-{scene.split}",
        "task": scene.kind,
        "index": scene.index,
        "seed": scene.seed,
        "size": scene.size,
        "frames": scene.frames,
        "fps": scene.fps,
        "background": scene.background.strength,
        "held_out": scene.held_out,
        "factors": scene.factors,
        "objects": [_object(sprite, scene.size) for sprite in scene.objects],
        "distractors": [_object(sprite, scene.size) for sprite in scene.distractors],
        "camera": np.round(scene.camera.astype(np.float64), 2).tolist(),
    }


def _object(sprite: Sprite, size: int) -> dict[str, Any]:
    path = sprite.path.astype(np.float64)
    velocity = np.gradient(path, axis=0) if len(path) > 1 else np.zeros_like(path)
    look = sprite.appearance
    return {
        "shape": look.shape,
        "colour": look.colour,
        "texture": look.texture,
        "rgb": [round(value, 3) for value in sprite.rgb],
        "radius": round(sprite.radius, 2),
        "angle": round(sprite.angle, 3),
        "outline": sprite.outline,
        "positions": np.round(np.round(path % size, 2) % size, 2).tolist(),
        "velocities": np.round(velocity, 3).tolist(),
        "depth": sprite.depth.tolist(),
    }
