"""Collapse measures on representations whose state is known by construction."""

from __future__ import annotations

import pytest
import torch

from mmjepa.training.config import HealthConfig
from mmjepa.training.health import alarms, rankme, representation_health

CLIPS, TOKENS, WIDTH = 12, 20, 16


@pytest.mark.parametrize("rank", [1, 3, 16])
def test_rankme_of_equal_singular_values_is_the_rank(rank: int) -> None:
    left = torch.linalg.qr(torch.randn(200, rank, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(WIDTH, rank, dtype=torch.float64)).Q
    assert rankme(left @ right.T) == pytest.approx(rank, rel=1e-4)


def test_rankme_is_the_entropy_of_the_singular_values() -> None:
    rows = torch.randn(300, WIDTH) * torch.linspace(0.1, 3, WIDTH)
    share = torch.linalg.svdvals(rows.double())
    share = share / share.sum()
    assert rankme(rows) == pytest.approx(float(torch.exp(-(share * share.log()).sum())), rel=1e-6)


def test_variance_shares_tell_clips_from_positions() -> None:
    clip, position = torch.randn(CLIPS, 1, WIDTH), torch.randn(1, TOKENS, WIDTH)
    everywhere = torch.zeros(CLIPS, TOKENS, WIDTH)
    by_clip, by_position = representation_health(everywhere + clip), representation_health(everywhere + position)
    assert by_clip["between_clip_share"] == pytest.approx(1.0)
    assert by_clip["positional_share"] == pytest.approx(0.0, abs=1e-9)
    assert by_position["between_clip_share"] == pytest.approx(0.0, abs=1e-9)
    assert by_position["positional_share"] == pytest.approx(1.0)


def test_alarm_speaks_of_what_is_wrong_and_only_then() -> None:
    healthy = torch.randn(CLIPS, 1, WIDTH) + torch.randn(CLIPS, TOKENS, WIDTH)
    positional = 0.05 * healthy + torch.randn(1, TOKENS, WIDTH)
    constant = torch.ones(CLIPS, TOKENS, WIDTH) + 1e-4 * healthy

    def said(tokens: torch.Tensor) -> str:
        return " ".join(alarms(representation_health(tokens), WIDTH, HealthConfig(rankme_floor=0.1)))

    assert said(healthy) == ""
    assert "look alike" in said(positional)
    assert "collapse" not in said(positional)
    assert "directions" in said(constant)
    assert "hardly vary" in said(constant)
