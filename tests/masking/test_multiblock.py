"""Multi-block masks: their statistics, what they promise for any grid, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from mmjepa.errors import UserError
from mmjepa.masking import BlockMask, MaskingConfig, draw_masks
from mmjepa.models import TokenGrid

GRID = TokenGrid(8, 14, 14)
SHORT = BlockMask(blocks=8, spatial_scale=(0.15, 0.15))
LONG = BlockMask(blocks=2, spatial_scale=(0.7, 0.7))
STATISTICS = json.loads((Path(__file__).parents[1] / "golden" / "mask_statistics.json").read_text())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("name", "mask"), [("short", SHORT), ("long", LONG)])
def test_unbatched_statistics_match_the_reference_generator(name: str, mask: BlockMask) -> None:
    """Batches of one have no truncation: visible share and visibility of centre and corner are the reference's."""
    expected = STATISTICS[name]["batch1"]
    source = generator()
    visible = torch.zeros(4000, *GRID.shape)
    for row in visible:
        (mask_set,) = draw_masks(MaskingConfig("m", "random", {name: mask}), GRID, 1, source)
        row.view(-1)[mask_set.context[0]] = 1
    share = visible.flatten(1).mean(dim=1)
    assert share.mean().item() == pytest.approx(expected["context_mean"], abs=0.006)
    assert share.std().item() == pytest.approx(expected["context_std"], abs=0.006)
    assert visible[:, 4, 7, 7].mean().item() == pytest.approx(expected["context_prob_centre"], abs=0.015)
    assert visible[:, 4, 0, 0].mean().item() == pytest.approx(expected["context_prob_corner"], abs=0.025)


def visibility_by_step(equalize: str) -> torch.Tensor:
    source = generator(1)
    counts = torch.zeros(GRID.steps)
    for _ in range(60):
        (mask_set,) = draw_masks(MaskingConfig("m", equalize, {"short": SHORT}), GRID, 8, source)
        counts += torch.bincount((mask_set.context // GRID.spatial).flatten(), minlength=GRID.steps)
    return counts / counts.sum()


def test_random_equalisation_favours_no_step_where_tail_hides_the_end() -> None:
    random, tail = visibility_by_step("random"), visibility_by_step("tail")
    assert random.max() / random.min() < 1.06
    expected = torch.tensor(STATISTICS["short"]["batch8_after_truncation"]["context_prob_by_time"])
    torch.testing.assert_close(tail, expected / expected.sum(), atol=0.02, rtol=0)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(3, 9), st.integers(3, 9)),
    batch=st.integers(1, 5),
    blocks=st.integers(1, 6),
    scale=st.floats(0.05, 0.4),
    keep=st.sampled_from([1.0, 0.5]),
    complement=st.booleans(),
    predicted=st.sampled_from([1.0, 0.6, 0.2]),
    lengths=st.sampled_from([None, 2, 7, 40]),
    seed=st.integers(0, 1000),
)
def test_properties_on_any_grid(
    shape: tuple[int, int, int],
    batch: int,
    blocks: int,
    scale: float,
    keep: float,
    complement: bool,
    predicted: float,
    lengths: int | None,
    seed: int,
) -> None:
    mask = BlockMask(blocks, (scale, scale), max_temporal_keep=keep, full_complement=complement)
    config = MaskingConfig("m", "random", {"only": mask}, predicted=predicted, lengths=lengths)
    grid = TokenGrid(*shape)
    step = math.ceil(grid.size / lengths) if lengths else 1
    try:
        (drawn,) = draw_masks(config, grid, batch, generator(seed))
    except UserError:
        reject()  # blocks that cover such a small grid whole are refused, see below
    (again,) = draw_masks(config, grid, batch, generator(seed))
    assert torch.equal(drawn.context, again.context)
    assert torch.equal(drawn.target, again.target)
    for context, target in zip(drawn.context.tolist(), drawn.target.tolist(), strict=True):
        assert context == sorted(set(context))
        assert target == sorted(set(target))
        assert context
        assert target
        assert not set(context) & set(target)
        assert set(context) | set(target) <= set(range(grid.size))
        assert len(context) % step == 0 or math.log2(len(context)).is_integer()
        if complement and predicted == 1:
            assert len(context) + len(target) == grid.size
        else:
            assert len(target) % step == 0 or math.log2(len(target)).is_integer()
        if keep < 1 and grid.steps > 1:
            assert max(context) < max(1, grid.steps // 2) * grid.spatial


def test_fewer_lengths_cut_lists_and_change_nothing_else() -> None:
    for seed in range(20):
        (any_length,), (cut,) = (
            draw_masks(MaskingConfig("m", "random", {"only": SHORT}, lengths=lengths), GRID, 2, generator(seed))
            for lengths in (None, 16)
        )
        for long, short in zip(any_length, cut, strict=True):
            assert 0 <= long.shape[1] - short.shape[1] < math.ceil(GRID.size / 16)
            assert all(set(few) <= set(more) for few, more in zip(short.tolist(), long.tolist(), strict=True))


@pytest.mark.parametrize("lengths", [2, 4, 16])
def test_lists_have_as_few_lengths_as_asked_for(lengths: int) -> None:
    config = MaskingConfig("m", "random", {"only": SHORT}, lengths=lengths)
    drawn = [draw_masks(config, GRID, 8, generator(seed))[0] for seed in range(60)]
    shorter = math.log2(GRID.size / lengths)  # powers of two, for lists that are shorter than one part
    assert len({part.shape[1] for mask in drawn for part in mask}) <= lengths + shorter


def test_fewer_places_are_predicted_at_all_their_steps() -> None:
    """The context stays as it is, and the hidden steps of a place go together or not at all."""
    mask = BlockMask(2, (0.5, 0.5), temporal_scale=(0.5, 0.5), full_complement=True)
    for seed in range(20):
        (every,), (some,) = (
            draw_masks(MaskingConfig("m", "random", {"only": mask}, predicted=share), GRID, 1, generator(seed))
            for share in (1.0, 0.25)
        )
        assert torch.equal(every.context, some.context)
        places = set((some.target[0] % GRID.spatial).tolist())
        hidden = every.target[0]
        at_these = hidden[torch.isin(hidden % GRID.spatial, torch.tensor(sorted(places)))]
        assert torch.equal(some.target[0], at_these)
        assert len(places) == math.ceil(0.25 * len(hidden.remainder(GRID.spatial).unique()))


def test_masks_that_cannot_work_are_refused_in_words() -> None:
    whole = MaskingConfig("m", "random", {"all": BlockMask(1, (1.0, 1.0), aspect=(1.0, 1.0))})
    with pytest.raises(UserError, match="'all' hides every token"):
        draw_masks(whole, GRID, 2, generator())
    with pytest.raises(UserError, match="equalize must be one of random, tail"):
        MaskingConfig("m", "head", {"short": SHORT})
    for share in (0.0, 1.5):
        with pytest.raises(UserError, match=r"predicted must lie in \(0, 1\]"):
            MaskingConfig("m", "random", {"short": SHORT}, predicted=share)
    with pytest.raises(UserError, match="lengths must be at least 2 or null, not 1"):
        MaskingConfig("m", "random", {"short": SHORT}, lengths=1)
    with pytest.raises(UserError, match="spatial_scale must be a range"):
        BlockMask(spatial_scale=(0.5, 1.5))
