"""From a scene to pixels: textured periodic ground, then sprites from far to near, all on a torus."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmjepa.data.sprites.appearance import coverage, texture_gain
from mmjepa.data.sprites.scene import Background, Scene, Sprite

FloatArray = NDArray[np.float32]

PATTERNS = ("clouds", "grain", "stripes", "checks")
_OVERSAMPLING = 4  # the ground is drawn on a finer grid, so that a drifting camera moves it by quarter pixels
_CONTRAST = 0.22  # standard deviation of the ground's brightness at strength 1


def render_clip(scene: Scene) -> NDArray[np.uint8]:
    """Pixels of a scene, (T, H, W, 3) uint8 RGB."""
    frames = _ground_frames(scene.background, scene.camera, scene.size)
    layers = [(int(depth), sprite) for sprite in scene.objects for depth in np.unique(sprite.depth)]
    layers += [(int(sprite.depth[0]), sprite) for sprite in scene.distractors]
    for depth, sprite in sorted(layers, key=lambda layer: layer[0]):
        _paint(frames, sprite, np.flatnonzero(sprite.depth == depth))
    return np.clip(frames * 255 + 0.5, 0, 255).astype(np.uint8)


def _paint(frames: FloatArray, sprite: Sprite, shown: NDArray[np.intp]) -> None:
    """Blend the sprite into ``frames`` (T, H, W, 3), in place, at the frame numbers ``shown``."""
    size = frames.shape[1]
    reach = min(int(np.ceil(sprite.radius * 1.1)) + 1, (size - 1) // 2)
    centre = np.floor(sprite.path[shown]).astype(np.int64)
    fraction = (sprite.path[shown] - centre).astype(np.float32)
    offsets = np.arange(-reach, reach + 1)
    dx = (offsets.astype(np.float32) + 0.5 - fraction[:, :1])[:, None, :]  # pixel centres lie at +0.5
    dy = (offsets.astype(np.float32) + 0.5 - fraction[:, 1:])[:, :, None]
    cosine, sine = np.float32(np.cos(sprite.angle)), np.float32(np.sin(sprite.angle))
    along, across = cosine * dx + sine * dy, cosine * dy - sine * dx
    alpha = coverage(sprite.appearance.shape, along, across, sprite.radius, sprite.outline)[..., None]
    colour: FloatArray = np.asarray(sprite.rgb, dtype=np.float32)
    gain = texture_gain(sprite.appearance.texture, along, sprite.radius)
    if gain is not None:
        colour = np.minimum(gain[..., None] * colour, 1.0)
    rows = (centre[:, 1:] + offsets)[:, :, None] % size
    columns = (centre[:, :1] + offsets)[:, None, :] % size
    where = (shown[:, None, None], rows, columns)
    ground = frames[where]
    frames[where] = ground + alpha * (colour - ground)


def _ground_frames(background: Background, camera: FloatArray, size: int) -> FloatArray:
    """The ground as the camera sees it, (T, H, W, 3) in [0, 1]."""
    mean = np.asarray(background.rgb, dtype=np.float32)
    if background.strength == 0:
        return np.broadcast_to(mean, (len(camera), size, size, 3)).copy()
    rng = np.random.default_rng(background.seed)
    fine = size * _OVERSAMPLING
    brightness, tint = _pattern(background.pattern, fine, rng), _pattern("clouds", fine, rng)
    hue = rng.normal(size=3).astype(np.float32)
    hue -= hue.mean()
    image = brightness[..., None] + 0.6 * tint[..., None] * hue / np.linalg.norm(hue)
    image = np.clip(mean + background.strength * _CONTRAST * image, 0.0, 1.0)
    whole, part = np.divmod(np.rint(camera * _OVERSAMPLING).astype(np.int64), _OVERSAMPLING)
    return np.stack(
        [
            np.roll(image[down::_OVERSAMPLING, right::_OVERSAMPLING], (-y, -x), axis=(0, 1))
            for (x, y), (right, down) in zip(whole, part, strict=True)
        ]
    )


def _pattern(name: str, fine: int, rng: np.random.Generator) -> FloatArray:
    """A periodic field (fine, fine) of mean 0 and standard deviation 1."""
    if name in ("clouds", "grain"):
        field = _noise(fine, rng, (1, 5) if name == "clouds" else (4, 12))
    else:
        waves = [_wave(fine, rng) for _ in range(1 if name == "stripes" else 2)]
        field = np.tanh(3 * waves[0]) if name == "stripes" else np.tanh(3 * waves[0]) * np.tanh(3 * waves[1])
    field = field - field.mean()
    return (field / field.std()).astype(np.float32)


def _noise(fine: int, rng: np.random.Generator, band: tuple[int, int]) -> FloatArray:
    """Periodic noise with wave numbers (cycles per frame) inside ``band``."""
    top = band[1]
    wave = np.arange(-top, top + 1)
    length = np.hypot(wave[:, None], wave[None, :])
    keep = (length >= band[0]) & (length <= top)
    spectrum = np.where(keep, rng.normal(size=keep.shape) + 1j * rng.normal(size=keep.shape), 0) / np.maximum(length, 1)
    basis = np.exp(2j * np.pi / fine * np.outer(np.arange(fine), wave)).astype(np.complex64)
    return np.real(basis @ spectrum.astype(np.complex64) @ basis.T)


def _wave(fine: int, rng: np.random.Generator) -> FloatArray:
    """A plane wave with a whole number of cycles per frame in both directions, 4 to 8 in all."""
    angle, cycles = rng.uniform(0, np.pi), rng.uniform(4, 8)
    kx, ky = np.rint(cycles * np.cos(angle)), np.rint(cycles * np.sin(angle))
    position = np.arange(fine, dtype=np.float32) * np.float32(2 * np.pi / fine)
    return np.sin(kx * position[None, :] + ky * position[:, None] + np.float32(rng.uniform(0, 2 * np.pi)))
