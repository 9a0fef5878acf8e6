"""What the networks promise beyond the golden numbers."""

from __future__ import annotations

import weakref

import pytest
import torch

from mmjepa.errors import UserError
from mmjepa.models import ModelConfig, PredictorConfig, TokenGrid, build_video_jepa, normalise_levels, patchify
from mmjepa.models.public import encoder_state
from mmjepa.models.rope import rotary_table
from mmjepa.models.transformer import Block

TINY = ModelConfig("t", 24, 4, 2, frames=8, resolution=64, patch=16, predictor=PredictorConfig(24, 2, 2))


@pytest.fixture
def jepa() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_video_jepa(TINY).eval()


def test_patchify_orders_tokens_with_time_slowest() -> None:
    pixels = torch.arange(2 * 3 * 4 * 32 * 48, dtype=torch.float32).view(2, 3, 4, 32, 48)
    patches = patchify(pixels, TokenGrid(2, 2, 3, tubelet=2, patch=16))
    t, y, x = 1, 0, 2
    expected = pixels[:, :, 2 * t : 2 * t + 2, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16].flatten(1)
    assert torch.equal(patches[:, (t * 2 + y) * 3 + x], expected)


def test_hidden_pixels_do_not_reach_context_tokens(jepa: torch.nn.Module) -> None:
    pixels = torch.randn(1, 3, 8, 64, 64)
    context = torch.arange(0, 32)[None]  # the first two steps
    changed = pixels.clone()
    changed[:, :, 4:] = 7.0
    assert torch.equal(jepa.encoder(pixels, context), jepa.encoder(changed, context))
    assert not torch.equal(jepa.encoder(pixels)[:, :32], jepa.encoder(changed)[:, :32])


def test_full_index_equals_no_index_and_order_of_tokens_is_immaterial(jepa: torch.nn.Module) -> None:
    pixels = torch.randn(2, 3, 8, 64, 64)
    whole = jepa.encoder(pixels)
    order = torch.stack([torch.randperm(64), torch.randperm(64)])
    shuffled = jepa.encoder(pixels, order)
    expected = torch.stack([clip[index] for clip, index in zip(whole, order, strict=True)])
    torch.testing.assert_close(shuffled, expected, atol=2e-5, rtol=1e-4)


def test_time_positions_are_relative(jepa: torch.nn.Module) -> None:
    """Rotary positions: a clip's tokens only depend on distances in time, so the same steps later give the same."""
    still = torch.randn(1, 3, 1, 64, 64).expand(-1, -1, 8, -1, -1)
    early, late = torch.arange(0, 32)[None], torch.arange(32, 64)[None]
    torch.testing.assert_close(jepa.encoder(still, early), jepa.encoder(still, late), atol=2e-5, rtol=1e-4)


def test_bfloat16_stays_close_to_float32(jepa: torch.nn.Module) -> None:
    pixels = torch.randn(2, 3, 8, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        low = normalise_levels(jepa.encoder(pixels))
    exact = normalise_levels(jepa.encoder(pixels))
    assert low.dtype == torch.float32
    assert (low - exact).abs().mean() < 0.02


@pytest.mark.parametrize("again", ["hidden", "blocks"])
@pytest.mark.parametrize("bf16", [False, True])
def test_recomputed_activations_give_the_same_gradients(again: str, bf16: bool) -> None:
    pixels = torch.randn(1, 3, 8, 64, 64)
    gradients = []
    for recompute in ("nothing", again):
        torch.manual_seed(0)
        model = build_video_jepa(ModelConfig(**{**TINY.__dict__, "recompute": recompute}))
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            levels = model.encoder(pixels)
        levels.square().mean().backward()
        gradients.append([p.grad for p in model.encoder.parameters() if p.grad is not None])
    assert len(gradients[0]) > 20
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64, torch.bfloat16])
def test_a_block_is_its_layers_one_after_the_other_to_the_last_bit(precision: torch.dtype) -> None:
    """Its layers are not called, and part of what they give is made again in the backward pass."""
    torch.manual_seed(0)
    block = Block(24, 2, 4.0).to(torch.float64 if precision == torch.float64 else torch.float32)
    rotary = rotary_table(TokenGrid(2, 3, 3), 12)
    x = torch.randn(2, 18, 24, dtype=next(block.parameters()).dtype)

    def layer_by_layer(x: torch.Tensor, rotary: torch.Tensor) -> torch.Tensor:
        attention = block.attention
        x = x + attention(attention.qkv(block.norm1(x)), rotary)
        return x + block.mlp(block.norm2(x))

    results = []
    for forward in (block, layer_by_layer):
        entering = x.clone().requires_grad_()
        block.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
            out = forward(entering, rotary)
        (out.float() ** 2).sum().backward()
        results.append([out, entering.grad, *(p.grad for p in block.parameters())])
    for made_again, plain in zip(*results, strict=True):
        assert torch.equal(made_again, plain)


@pytest.mark.parametrize("recompute", ["nothing", "hidden", "blocks"])
def test_recomputing_blocks_keep_no_hidden_layers(monkeypatch: pytest.MonkeyPatch, recompute: str) -> None:
    """What a block would make its activations from again must not outlive a forward pass that forgets them all."""
    gelu, hidden = torch.nn.functional.gelu, []

    def noted(x: torch.Tensor) -> torch.Tensor:
        hidden.append(weakref.ref(x))
        return gelu(x)

    monkeypatch.setattr(torch.nn.functional, "gelu", noted)
    model = build_video_jepa(ModelConfig(**{**TINY.__dict__, "recompute": recompute}))
    loss = model.encoder(torch.randn(1, 3, 8, 64, 64)).square().mean()
    assert len(hidden) == TINY.depth
    assert sum(one() is not None for one in hidden) == (TINY.depth if recompute == "nothing" else 0)
    loss.backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 5}, "does not divide into 5 heads"),
        ({"depth": 6}, "not a multiple of the 4 output levels"),
        ({"resolution": 60}, "does not divide into tubelets"),
        ({"frames": 7}, "does not divide into tubelets"),
    ],
)
def test_impossible_sizes_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ModelConfig(**{**TINY.__dict__, **change})


def test_foreign_weights_are_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"'decoder\.weight' is not a key"):
        encoder_state({"decoder.weight": torch.zeros(1)})
