"""The attentive pooler, and heads as files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmjepa.alignment.heads import AlignmentHead, HeadConfig, HeadInfo, load_head, save_head
from mmjepa.alignment.pooler import AttentivePooler
from mmjepa.errors import UserError
from mmjepa.frozen import FrozenSpec, Tokens
from mmjepa.text import TextConfig

SIZES = HeadConfig(embedding=8, queries=2, heads=2, channels=8, hidden=16, dropout=0.1, text_residual=True)


def features(count: int = 6) -> Tokens:
    """Tokens with a large offset per position; the last step of every other clip is absent."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(count, 4, 3, 10, generator=generator) * torch.logspace(-1, 1, 10)
    tokens += 20 * torch.randn(4, 3, 10, generator=generator)
    present = torch.ones(count, 4, dtype=torch.bool)
    present[::2, 3] = False
    return Tokens(tokens, present)


def fitted_pooler(shrinkage: float | None) -> AttentivePooler:
    """On tokens of which one direction holds nearly all variance."""
    torch.manual_seed(0)
    pooler = AttentivePooler(4, 3, 10, queries=2, heads=2, channels=8, shrinkage=shrinkage)
    tokens = features(200).tokens
    tokens[..., 1:4] += 30 * tokens[..., :1]
    pooler.whitening.fit(Tokens(part, torch.ones(len(part), 4, dtype=torch.bool)) for part in tokens.split(64))
    white = (tokens - pooler.whitening.mean) @ pooler.whitening.matrix
    torch.testing.assert_close(white.mean(dim=0), torch.zeros(4, 3, 10), atol=1e-3, rtol=0)
    covariance = torch.cov(white.flatten(0, 2).T, correction=0)
    torch.testing.assert_close(covariance.diagonal(), torch.ones(10), atol=0.02, rtol=0)
    if shrinkage is not None:
        torch.testing.assert_close(covariance, torch.eye(10), atol=0.02, rtol=0)
    return pooler


@pytest.mark.parametrize("shrinkage", [None, 1e-6])
def test_pooling_equals_multi_head_cross_attention_to_whitened_tokens(shrinkage: float | None) -> None:
    """torch's attention with identity keys, one head per learned query, and the values projected afterwards."""
    pooler, given = fitted_pooler(shrinkage), features()
    white = (given.tokens - pooler.whitening.mean) @ pooler.whitening.matrix
    keys = (white + pooler.position).flatten(1, 2)
    mask = given.present.repeat_interleave(3, dim=1)[:, None, :].expand(-1, 4, -1)
    attended = torch.nn.functional.scaled_dot_product_attention(
        pooler.query.expand(len(keys), -1, -1), keys, keys, attn_mask=mask
    )
    expected = torch.stack([attended[:, head] @ pooler.value[head] for head in range(4)], dim=1).flatten(1)
    pooled = pooler(given.tokens, given.present)
    torch.testing.assert_close(pooled, expected, atol=1e-3, rtol=1e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # whitening cancels large numbers: not in bf16
        assert torch.equal(pooler(given.tokens, given.present), pooled)


def test_absent_steps_are_not_attended_to() -> None:
    torch.manual_seed(0)
    head = AlignmentHead(SIZES, (4, 3, 10), 5).eval()
    given = features()
    changed = given.tokens.clone()
    changed[~given.present] = 1e3
    before, after = head.embed_video(given), head.embed_video(Tokens(changed, given.present))
    assert torch.equal(before, after)
    torch.testing.assert_close(before.norm(dim=1), torch.ones(6))
    every_step = torch.ones_like(given.present)
    assert not torch.allclose(head.embed_video(Tokens(given.tokens, every_step)), before)


def test_token_dropout_is_for_training_and_never_leaves_a_clip_without_tokens() -> None:
    torch.manual_seed(0)
    pooler = AttentivePooler(4, 3, 10, queries=2, heads=2, channels=8, token_dropout=0.99)
    given = features()
    first, second = pooler(given.tokens, given.present), pooler(given.tokens, given.present)
    assert not torch.allclose(first, second)
    changed = given.tokens.masked_fill(~given.present[:, :, None, None], 1e3)
    pooled = []
    for tokens in (given.tokens, changed):
        torch.manual_seed(1)
        pooled.append(pooler(tokens, given.present))
    assert torch.equal(*pooled), "tokens of absent steps were used"
    assert first.isfinite().all()
    pooler.eval()
    assert torch.equal(pooler(given.tokens, given.present), pooler(given.tokens, given.present))


def info(fingerprint: str = "f" * 64) -> HeadInfo:
    return HeadInfo(
        "baseline", fingerprint, TextConfig("open_clip", "x"), "open_clip/x", 3, 100, "info_nce", {"a": 0.5}
    )


def test_a_saved_head_gives_the_same_embeddings(tmp_path: Path) -> None:
    torch.manual_seed(0)
    head = AlignmentHead(SIZES, (4, 3, 10), 5)
    head.pooler.whitening.fit([Tokens(features().tokens, torch.ones(6, 4, dtype=torch.bool))])
    save_head(head, info(), tmp_path / "head")
    save_head(head, info(), tmp_path / "head")  # a finished run may be exported again
    loaded, about = load_head(tmp_path / "head")
    text = torch.randn(3, 5)
    head.eval()
    assert about == info()
    assert torch.equal(loaded.embed_video(features()), head.embed_video(features()))
    assert torch.equal(loaded.embed_text(text), head.embed_text(text))


def spec(fingerprint: str) -> FrozenSpec:
    ones: tuple[float, float, float] = (1.0, 1.0, 1.0)
    return FrozenSpec("other", fingerprint, 8, 32, 2, 16, ones, ones, 10, frozenset())


def test_a_head_refuses_another_encoder(tmp_path: Path) -> None:
    info().require_encoder(spec("f" * 64))
    with pytest.raises(UserError, match="fitted on encoder baseline"):
        info().require_encoder(spec("0" * 64))


def test_a_missing_or_damaged_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no alignment head"):
        load_head(tmp_path / "head")
    save_head(AlignmentHead(SIZES, (4, 3, 10), 5), info(), tmp_path / "head")
    about = tmp_path / "head" / "config.json"
    told = about.read_text()
    about.write_text(told.replace('"format": 2', '"format": 1'))
    with pytest.raises(UserError, match="head of format 1, not 2: fit it again"):
        load_head(tmp_path / "head")
    about.write_text(told)
    (tmp_path / "head" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="does not hold an alignment head"):
        load_head(tmp_path / "head")


@pytest.mark.parametrize("sizes", [{"queries": 0}, {"heads": 3, "channels": 8}, {"dropout": 1.0}, {"shrinkage": 0.0}])
def test_impossible_sizes_are_refused(sizes: dict[str, float]) -> None:
    with pytest.raises(UserError):
        HeadConfig(**sizes)
