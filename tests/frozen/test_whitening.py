"""Statistics of tokens and their whitening, against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmjepa.frozen.whitening import token_moments, whitening


def correlated(seed: int, clips: int = 60, channels: int = 6, offset: float = 100.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(channels, channels, generator=generator) * torch.logspace(-2, 1, channels)
    centre = offset * torch.randn(2, 3, channels, generator=generator)
    return torch.randn(clips, 2, 3, channels, generator=generator) @ mixing + centre


@given(seed=st.integers(0, 10_000), size=st.integers(1, 70))
@settings(max_examples=20, deadline=None)
def test_moments_are_those_of_numpy_whatever_the_blocks(seed: int, size: int) -> None:
    tokens = correlated(seed)
    mean, covariance = token_moments(tokens.split(size))
    exact = tokens.double().numpy()
    rest = (exact - exact.mean(axis=0)).reshape(-1, exact.shape[-1])
    np.testing.assert_allclose(mean.numpy(), exact.mean(axis=0), rtol=1e-6, atol=1e-5)
    largest = np.abs(rest.T @ rest / len(rest)).max()
    np.testing.assert_allclose(covariance.numpy(), rest.T @ rest / len(rest), atol=1e-5 * largest, rtol=0)


@pytest.mark.parametrize("shrinkage", [1e-4, 0.3])
def test_principal_directions_shrink_towards_one_size(shrinkage: float) -> None:
    mean, covariance = token_moments([correlated(3, offset=0.1)])
    matrix = whitening(mean, covariance, shrinkage)
    scale = covariance.diagonal().rsqrt()
    before = torch.linalg.eigvalsh(covariance * scale[:, None] * scale)
    after = torch.linalg.eigvalsh(matrix.T @ covariance @ matrix)
    torch.testing.assert_close(after.sort().values, (before * (1 + shrinkage) / (before + shrinkage)).sort().values)


def test_without_shrinkage_channels_are_scaled_and_nothing_else() -> None:
    mean, covariance = token_moments([correlated(4, offset=0.1)])
    torch.testing.assert_close(whitening(mean, covariance, None), covariance.diagonal().rsqrt().diag())


@pytest.mark.parametrize("shrinkage", [None, 1e-4])
def test_a_constant_channel_is_left_out_whatever_it_does_later(shrinkage: float | None) -> None:
    tokens = correlated(5, offset=0.1)
    tokens[..., 2] = 7.0
    mean, covariance = token_moments([tokens])
    matrix = whitening(mean, covariance, shrinkage)
    later = tokens.double() - mean
    later[..., 2] = torch.randn(later.shape[:-1], dtype=torch.float64)
    assert (later @ matrix).isfinite().all()
    torch.testing.assert_close(later @ matrix, (tokens.double() - mean) @ matrix)


@pytest.mark.parametrize("shrinkage", [None, 1e-4])
def test_readouts_fitted_on_stored_features_see_the_same_in_live_ones(shrinkage: float | None) -> None:
    """Silenced channels are constants that hardly tremble: stored in float16 they round, live they do not."""
    live = correlated(6, offset=0.1)
    generator = torch.Generator().manual_seed(7)
    live[..., 1] = 0.3011 + 1e-4 * torch.randn(live.shape[:-1], generator=generator)
    live[..., 4] = -0.7003 + 2e-5 * torch.randn(live.shape[:-1], generator=generator)
    stored = live.half().float()
    mean, covariance = token_moments([stored])
    matrix = whitening(mean, covariance, shrinkage)
    difference = (stored - live).double() @ matrix
    assert difference.square().mean().sqrt() < 0.05 * ((stored - mean).double() @ matrix).square().mean().sqrt()
