"""Ragged rows and the shapes of items."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omniloom.errors import ShapeError
from omniloom.sequence import Packed, Shape

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=5)


@given(LENGTHS)
def test_items_come_out_as_they_went_in(lengths):
    rows = [torch.randn(length, 3) for length in lengths]
    packed = Packed.of(rows)
    assert packed.lengths == lengths and len(packed) == len(lengths)
    assert all(torch.equal(a, b) for a, b in zip(packed.items(), rows, strict=True))


@given(LENGTHS)
def test_padded_rows_are_the_items_with_zeros_behind(lengths):
    packed = Packed.of([torch.randn(length, 3) for length in lengths])
    padded, mask = packed.padded()
    assert torch.equal(padded[mask], packed.x) and not bool(padded[~mask].any())
    assert mask.sum(1).tolist() == lengths


@given(LENGTHS, LENGTHS)
def test_joined_rows_are_the_items_of_both(first, second):
    a, b = (Packed.of([torch.randn(n, 2) for n in lengths]) for lengths in (first, second))
    joined = Packed.cat([a, b])
    assert joined.lengths == first + second and torch.equal(joined.x, torch.cat([a.x, b.x]))


@pytest.mark.parametrize(
    "x", [torch.zeros(5, 2), torch.zeros(4), torch.zeros(4, 2, 1)], ids=["more rows", "1-D", "3-D"]
)
def test_rows_that_are_not_those_of_the_shapes_are_refused(x):
    with pytest.raises(ShapeError, match="disagree"):
        Packed(x, (Shape(1), Shape(3)))


def test_a_shape_holds_at_least_one_row_and_its_grid_and_times_agree():
    with pytest.raises(ShapeError, match="at least one"):
        Shape(0)
    with pytest.raises(ShapeError, match="grid"):
        Shape(5, (1, 2, 2))
    with pytest.raises(ShapeError, match="2 times for 3 rows"):
        Shape(3, times=(0.0, 1.0))
