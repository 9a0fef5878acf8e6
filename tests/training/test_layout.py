"""Who computes which rows of a global batch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmjepa.errors import UserError
from mmjepa.training.task import Layout


@given(world=st.integers(1, 6), accumulation=st.integers(1, 5), size=st.integers(1, 7))
def test_every_row_is_computed_once_in_equal_parts(world: int, accumulation: int, size: int) -> None:
    batch_size = world * accumulation * size
    parts = [
        range(batch_size)[rows]
        for rank in range(world)
        for rows in Layout(rank, world, accumulation).micro_rows(batch_size)
    ]
    assert [row for part in parts for row in part] == list(range(batch_size))
    assert {len(part) for part in parts} == {size}


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(UserError, match="10 does not divide into 2 ranks x 3"):
        Layout(0, 2, 3).micro_rows(10)
