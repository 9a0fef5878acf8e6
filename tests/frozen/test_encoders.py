"""Frozen encoders: the tokens they give, and what they do about missing frames."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmjepa.errors import UserError
from mmjepa.frozen import EncoderConfig, build_encoder
from mmjepa.frozen.checkpoint import ExportedEncoder, load_exported
from mmjepa.frozen.own import FrozenVideoJEPA, to_encoder_scale
from mmjepa.models import TokenGrid, normalise_levels, standardise_clip

STEPS, SPATIAL, WIDTH = 4, 4, 24
# Frames received of three clips. Clip 1 has lost single frames only, clip 2 all but one frame.
RECEIVED = torch.tensor(
    [[1, 1, 0, 0, 1, 1, 0, 0], [1, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1, 0, 0]], dtype=torch.bool
)
PRESENT = [[0, 2], [0, 1, 2, 3], [2]]


@pytest.fixture
def pixels() -> Tensor:
    return torch.randn(3, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))


def own(export: Path, **changes: str) -> EncoderConfig:
    return EncoderConfig(kind="own", name="test", checkpoint=str(export), device="cpu", **changes)


def test_whole_clips_give_the_last_level_on_the_grid(export: Path, exported: ExportedEncoder, pixels: Tensor) -> None:
    encoder = build_encoder(own(export))
    features = encoder.encode(pixels)
    assert features.tokens.shape == (3, STEPS, SPATIAL, WIDTH)
    assert features.present.all()
    assert torch.equal(features.tokens.flatten(1, 2), exported.model.encoder(pixels)[:, :, -1])
    spec = encoder.spec
    assert (spec.steps, spec.spatial, spec.width, spec.pretrain_seed) == (STEPS, SPATIAL, WIDTH, 7)
    assert spec.mean == (0.4, 0.5, 0.6)


@pytest.mark.parametrize("recompute", [True, "hidden"])
def test_what_training_kept_for_its_backward_pass_is_nothing_to_a_frozen_encoder(
    export: Path, tmp_path: Path, pixels: Tensor, recompute: object
) -> None:
    """``True`` is what exports of before say."""
    other = shutil.copytree(export, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["model"]["recompute"] = recompute
    (other / "config.json").write_text(json.dumps(config))
    tokens = [build_encoder(own(folder)).encode(pixels).tokens for folder in (export, other)]
    assert torch.equal(*tokens)


def test_a_still_is_one_step(export: Path, exported: ExportedEncoder, pixels: Tensor) -> None:
    features = build_encoder(own(export)).encode(pixels[:, :, :1])
    assert features.tokens.shape == (3, 1, SPATIAL, WIDTH)
    assert torch.equal(features.tokens[:, 0], exported.model.encoder(pixels[:, :, :1])[:, :, -1])


def test_levels_and_factors_are_slices_of_the_same_tokens(
    export: Path, exported: ExportedEncoder, pixels: Tensor
) -> None:
    levels = exported.model.encoder(pixels)
    everything = build_encoder(own(export, levels="all")).encode(pixels).tokens.flatten(1, 2)
    assert torch.equal(everything, levels.flatten(2))
    dynamics = build_encoder(own(export, levels="all", factor="dynamics"))
    assert torch.equal(dynamics.encode(pixels).tokens.flatten(1, 2), levels[..., WIDTH // 4 :].flatten(2))
    appearance = build_encoder(own(export, factor="appearance"))
    assert torch.equal(appearance.encode(pixels).tokens.flatten(1, 2), levels[:, :, -1, : WIDTH // 4])
    assert appearance.spec.width == WIDTH // 4
    assert dynamics.spec.width == 4 * (WIDTH - WIDTH // 4)  # a quarter of the channels were trained as appearance


def test_factors_split_across_levels_are_read_from_all_levels_or_refused(export: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(export, tmp_path / "encoder")
    facts = json.loads((folder / "config.json").read_text())
    facts["objective"]["factors"] = {"split": "across_levels", "appearance_share": 0.5}
    (folder / "config.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="levels=all"):
        build_encoder(own(folder, factor="appearance"))
    assert build_encoder(own(folder, levels="all", factor="appearance")).spec.width == 2 * WIDTH


@pytest.mark.parametrize("fill", ["mask", "predict"])
def test_missing_tubelets_are_never_seen(export: Path, exported: ExportedEncoder, pixels: Tensor, fill: str) -> None:
    """Received tubelets get the tokens that each clip gets alone, at true positions; the others stay unread."""
    encoder = build_encoder(own(export))
    features = encoder.encode(pixels, RECEIVED, fill)
    for clip, steps in enumerate(PRESENT):
        index = torch.tensor([[step * SPATIAL + place for step in steps for place in range(SPATIAL)]])
        alone = exported.model.encoder(pixels[clip : clip + 1], index)[0, :, -1]
        torch.testing.assert_close(features.tokens[clip, steps].flatten(0, 1), alone, atol=1e-5, rtol=1e-5)
    noisy = pixels.clone()
    noisy[0, :, 2:4] = 9.0
    noisy[2, :, :4] = -9.0
    torch.testing.assert_close(encoder.encode(noisy, RECEIVED, fill).tokens, features.tokens)


def test_mask_leaves_missing_tubelets_out(export: Path, pixels: Tensor) -> None:
    features = build_encoder(own(export)).encode(pixels, RECEIVED, "mask")
    assert [row.nonzero().flatten().tolist() for row in features.present] == PRESENT
    assert (features.tokens[~features.present] == 0).all()
    assert (features.tokens[features.present] != 0).any(dim=-1).all()


def test_predict_fills_missing_tubelets_from_the_predictor(
    export: Path, exported: ExportedEncoder, pixels: Tensor
) -> None:
    features = build_encoder(own(export)).encode(pixels, RECEIVED, "predict")
    assert features.present.all()
    grid = exported.model.encoder.grid_of(pixels)
    here, missing = torch.arange(8, 12)[None], torch.cat([torch.arange(8), torch.arange(12, 16)])[None]
    context = exported.model.encoder(pixels[2:], here)
    predicted, _ = exported.model.predictor(context, here, missing, grid)
    # Up to one shift and one scale per clip and level, which the next test is about.
    mine, theirs = features.tokens[2].flatten(0, 1)[missing[0]], predicted[0, :, -1]
    standard = [(one - one.mean()) / one.std() for one in (mine, theirs)]
    torch.testing.assert_close(standard[0], standard[1], atol=1e-4, rtol=1e-4)


def test_a_perfect_prediction_returns_the_encoders_own_tokens(exported: ExportedEncoder, pixels: Tensor) -> None:
    """From exact training targets of the missing tokens, the tokens that the encoder would have given are found."""
    levels = exported.model.encoder(pixels)
    targets = normalise_levels(levels)
    here, missing = slice(0, 8), slice(8, 16)
    found = to_encoder_scale(targets[:, missing], levels[:, here])
    norm = exported.model.encoder.norms[-1]
    twice = targets[:, missing, -1] * norm.weight + norm.bias  # the affine is in the target already
    truth = levels[:, missing, -1]
    errors = [float((guess - truth).square().mean() / truth.var()) for guess in (found[:, :, -1], twice)]
    assert errors[0] < 0.03
    assert errors[0] < errors[1] / 3


def test_targets_standardised_per_clip_are_undone(
    exported: ExportedEncoder, pixels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A predictor that is right about targets of this kind leads back to the encoder's tokens, not to their residue."""
    levels = exported.model.encoder(pixels)
    targets = standardise_clip(normalise_levels(levels))

    def right(_: Tensor, __: Tensor, missing: Tensor, grid: TokenGrid) -> tuple[Tensor, None]:
        return targets[:1, missing[0]], None

    monkeypatch.setattr(exported.model.predictor, "forward", right)
    errors = []
    for kind in ("clip_standardised", "level"):
        encoder = FrozenVideoJEPA(replace(exported, targets=kind), "test")
        tokens = encoder.encode(pixels[:1], RECEIVED[:1], "predict").tokens.flatten(1, 2)
        missing = [4, 5, 6, 7, 12, 13, 14, 15]
        errors.append(float((tokens - levels[:1, :, -1])[:, missing].square().mean() / levels[..., -1, :].var()))
    assert errors[0] < 0.5 * errors[1]


def test_nothing_missing_equals_the_whole_clip(export: Path, pixels: Tensor) -> None:
    encoder = build_encoder(own(export))
    whole = encoder.encode(pixels).tokens
    for fill in ("mask", "predict"):
        filled = encoder.encode(pixels, torch.ones_like(RECEIVED), fill)
        torch.testing.assert_close(filled.tokens, whole, atol=1e-5, rtol=1e-5)


def test_bf16_stays_near_fp32(export: Path, pixels: Tensor) -> None:
    exact, rough = (build_encoder(own(export, precision=name)).encode(pixels).tokens for name in ("fp32", "bf16"))
    assert rough.dtype == torch.float32
    assert 0 < (exact - rough).abs().max() < 0.2


def test_random_init_is_its_seed_and_nothing_else(export: Path, pixels: Tensor) -> None:
    def encode(seed: int) -> tuple[Tensor, str]:
        encoder = build_encoder(EncoderConfig("random_init", "random_init", str(export), seed=seed, device="cpu"))
        return encoder.encode(pixels).tokens, encoder.spec.fingerprint

    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = encode(3), encode(3), encode(4)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first[0], again[0])
    assert first[1] == again[1] != other[1]
    trained = build_encoder(own(export)).encode(pixels).tokens
    assert not torch.allclose(first[0], other[0])
    assert not torch.allclose(first[0], trained)


EVEN = range(0, 16, 2)


def test_raw_patches_are_the_pixels_of_each_tubelet_at_half_resolution(export: Path, pixels: Tensor) -> None:
    encoder = build_encoder(EncoderConfig("raw_patches", "raw_patches", str(export), device="cpu"))
    features = encoder.encode(pixels, RECEIVED, "mask")
    tubelet = pixels[0, :, 4:6, :16, 16:]  # third in time; upper row, right column
    expected = [tubelet[c, t, y : y + 2, x : x + 2].mean() for c, t, y, x in product(range(3), range(2), EVEN, EVEN)]
    torch.testing.assert_close(features.tokens[0, 2, 1], torch.stack(expected))
    assert [row.nonzero().flatten().tolist() for row in features.present] == PRESENT
    assert (features.tokens[~features.present] == 0).all()
    with pytest.raises(UserError, match="cannot do the fill 'predict'"):
        encoder.encode(pixels, RECEIVED, "predict")


def test_fingerprints_name_weights_and_options(export: Path, exported: ExportedEncoder) -> None:
    prints = {
        build_encoder(own(export, **one)).spec.fingerprint for one in ({}, {"levels": "all"}, {"precision": "bf16"})
    }
    assert len(prints) == 3
    again = FrozenVideoJEPA(load_exported(export), "another name")
    assert again.spec.fingerprint in prints
    assert again.spec.fingerprint == FrozenVideoJEPA(exported, "test").spec.fingerprint


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "no exported encoder"),
        (lambda folder: (folder / "config.json").write_text("{"), "not JSON"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 40), "cannot read"),
        (lambda folder: _set_width(folder, 36), "do not fit"),
    ],
)
def test_an_unusable_checkpoint_is_refused_in_one_line(
    export: Path, tmp_path: Path, damage: object, message: str
) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(export, folder)
    damage(folder)  # type: ignore[operator]
    with pytest.raises(UserError, match=message) as caught:
        build_encoder(own(folder))
    assert "\n" not in str(caught.value)


def _set_width(folder: Path, width: int) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model"]["width"] = width
    (folder / "config.json").write_text(json.dumps(config))


def test_unknown_kinds_and_options_are_refused(export: Path) -> None:
    with pytest.raises(UserError, match="unknown encoder kind 'clip'"):
        build_encoder(EncoderConfig("clip", "clip", str(export)))
    with pytest.raises(UserError, match="levels=first"):
        own(export, levels="first")
