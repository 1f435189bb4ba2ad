"""Codes of an item, and the ids that blocks of the vocabulary give them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omniloom.errors import PlanError, ShapeError
from omniloom.sequence import Codes, Shape, Vocabulary


@given(st.integers(1, 1000), st.lists(st.integers(1, 50), max_size=4))
def test_every_id_belongs_to_exactly_one_place(base, sizes):
    vocabulary = Vocabulary.of(base, {f"m{index}": size for index, size in enumerate(sizes)})
    assert vocabulary.size == base + sum(size + 2 for size in sizes)
    owners = [vocabulary.block_of(token) for token in range(base, vocabulary.size)]
    assert all(vocabulary.block_of(token) is None for token in range(min(base, 20)))
    for name, block in vocabulary.blocks.items():
        mine = [base + place for place, owner in enumerate(owners) if owner is not None and owner.modality == name]
        assert mine == [block.begin, block.end, *range(block.first, block.stop)]


@pytest.mark.parametrize("token", [-1, 15])
def test_ids_outside_the_vocabulary_are_refused(token):
    with pytest.raises(PlanError, match="outside the vocabulary of 15"):
        Vocabulary.of(10, {"a": 3}).block_of(token)


@pytest.mark.parametrize(
    "books", [(), (torch.zeros(2, 2, dtype=torch.long),), (torch.zeros(3),)], ids=["none", "2-D", "floats"]
)
def test_codes_are_rows_of_integers(books):
    with pytest.raises(ShapeError, match="codebook"):
        Codes(books, Shape(3))
