"""Contrastive losses against loops in float64, what may not be a negative, and the gather over ranks."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmjepa.alignment.losses import LOSSES, NO_CAPTION, InfoNCE, PairwiseSigmoid, positive_pairs

# Wording ids of all captions of five videos. Videos 0 and 1 share wording 1; videos 3 and 4 share both of theirs.
WORDINGS = torch.tensor([[0, 1], [1, 2], [3, NO_CAPTION], [4, 5], [5, 4]])
CHOSEN = torch.tensor([0, 1, 3, 4, 5])  # the caption that each video contributes


def unit_vectors(seed: int, count: int = 5) -> Tensor:
    vectors = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=1)


def is_true_of(caption: int, video: int) -> bool:
    return int(CHOSEN[caption]) in WORDINGS[video].tolist()


def naive_info_nce(video: Tensor, text: Tensor, scale: float) -> float:
    """Mean over both directions and all rows of the mean over positives of -log softmax, in plain loops."""
    total = 0.0
    count = len(video)
    for one, other, true in (
        (video, text, lambda row, column: is_true_of(column, row)),
        (text, video, lambda row, column: is_true_of(row, column)),
    ):
        for row in range(count):
            scores = [scale * float(one[row] @ other[column]) for column in range(count)]
            log_sum = math.log(sum(math.exp(score) for score in scores))
            positives = [column for column in range(count) if true(row, column)]
            total += sum(log_sum - scores[column] for column in positives) / len(positives) / count / 2
    return total


def naive_sigmoid(video: Tensor, text: Tensor, scale: float, bias: float) -> float:
    total = 0.0
    for row in range(len(video)):
        for column in range(len(text)):
            score = scale * float(video[row] @ text[column]) + bias
            total += math.log1p(math.exp(-score if is_true_of(column, row) else score))
    return total / len(video)


def test_losses_equal_plain_loops() -> None:
    video, text = unit_vectors(0), unit_vectors(1)
    info_nce, sigmoid = InfoNCE(), PairwiseSigmoid()
    expected = naive_info_nce(video, text, info_nce.scale.item())
    assert info_nce(video, text, WORDINGS, CHOSEN).item() == pytest.approx(expected, rel=1e-5)
    expected = naive_sigmoid(video, text, sigmoid.scale.item(), sigmoid.bias.item())
    assert sigmoid(video, text, WORDINGS, CHOSEN).item() == pytest.approx(expected, rel=1e-5)


def test_info_nce_without_shared_captions_is_cross_entropy() -> None:
    video, text = unit_vectors(2).float(), unit_vectors(3).float()
    loss, own = InfoNCE(), torch.arange(5)
    scores = loss.scale * video @ text.T
    expected = (torch.nn.functional.cross_entropy(scores, own) + torch.nn.functional.cross_entropy(scores.T, own)) / 2
    torch.testing.assert_close(loss(video, text, own[:, None], own), expected)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4), min_size=1, max_size=6), st.data())
def test_true_captions_are_never_negatives(captions: list[list[str]], data: st.DataObject) -> None:
    widest = max(map(len, captions))
    table = torch.tensor([[ord(c) for c in row] + [NO_CAPTION] * (widest - len(row)) for row in captions])
    chosen = [data.draw(st.sampled_from(row)) for row in captions]
    pairs = positive_pairs(table, torch.tensor([ord(c) for c in chosen]))
    for video, row in enumerate(captions):
        for other, caption in enumerate(chosen):
            assert bool(pairs[video, other]) == (caption in row)


@pytest.mark.parametrize("name", LOSSES)
def test_temperature_and_bias_are_learned(name: str) -> None:
    loss = LOSSES[name]()
    loss(unit_vectors(0).float(), unit_vectors(1).float(), WORDINGS, CHOSEN).backward()
    assert all(parameter.grad is not None and parameter.grad.abs() > 0 for parameter in loss.parameters())


# --- two ranks --------------------------------------------------------------------------------------------------------


def _joined_batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    wordings = torch.tensor([[0, 1], [1, 2], [3, 6], [0, 5]])  # rows 0 and 3, on different ranks, share wording 0
    return unit_vectors(4, 4).float(), unit_vectors(5, 4).float(), wordings, torch.tensor([0, 1, 3, 0])


def _parameters(name: str) -> tuple[torch.nn.Linear, torch.nn.Module]:
    torch.manual_seed(0)
    return torch.nn.Linear(6, 6), LOSSES[name]()


def _loss_and_gradients(name: str, rows: slice) -> tuple[Tensor, list[Tensor]]:
    video, text, wordings, chosen = _joined_batch()
    layer, loss = _parameters(name)
    value = loss(layer(video[rows]), text[rows], wordings[rows], chosen[rows])
    value.backward()
    return value.detach(), [p.grad for p in (*layer.parameters(), *loss.parameters()) if p.grad is not None]


def _rank(rank: int, rendezvous: str, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    for name in LOSSES:
        value, gradients = _loss_and_gradients(name, slice(2 * rank, 2 * rank + 2))
        for tensor in (value, *gradients):
            dist.all_reduce(tensor)
            tensor /= 2  # what the engine does with gradients
        if rank == 0:
            np.savez(f"{out}-{name}.npz", value, *gradients)
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_give_the_loss_and_gradients_of_one(tmp_path: Path) -> None:
    out = str(tmp_path / "two")
    mp.spawn(_rank, args=(str(tmp_path / "rendezvous"), out), nprocs=2)
    for name in LOSSES:
        value, gradients = _loss_and_gradients(name, slice(0, 4))
        joined = list(np.load(f"{out}-{name}.npz").values())
        for mine, theirs in zip((value, *gradients), joined, strict=True):
            np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-5, atol=1e-7)
