from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omniloom.codecs.layouts import Flattened
from omniloom.errors import ConfigError, ShapeError
from omniloom.registry import BUILT_IN, build, spec_of
from omniloom.sequence import Codes, Shape


@st.composite
def coded(draw):
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    frames = draw(st.integers(1, 6))
    books = [draw(st.lists(st.integers(0, size - 1), min_size=frames, max_size=frames)) for size in sizes]
    return sizes, Codes(tuple(torch.tensor(book) for book in books), Shape(frames))


@pytest.mark.parametrize("name", BUILT_IN["layouts"])
@given(case=coded(), places=st.integers(1, 5))
@settings(deadline=None, max_examples=60)
def test_reading_undoes_placing_for_every_layout(name, case, places):
    sizes, codes = case
    layout = build("layouts", {"type": name, "places": places}, sizes)
    slots = layout.place(codes)
    again = layout.read(slots, codes.shape)
    assert len(slots) == layout.length(codes.shape)
    assert all(torch.equal(a, b) for a, b in zip(again.books, codes.books, strict=True)) and again.shape == codes.shape
    ranges = [layout.allowed(step) for step in range(len(slots))]
    assert all(first <= slot < stop <= layout.size for slot, (first, stop) in zip(slots, ranges, strict=True))
    assert spec_of("layouts", layout) == {"type": name, "places": places}


def test_places_give_the_same_code_another_id_in_another_frame():
    layout = Flattened([4], places=3)
    codes = Codes((torch.tensor([2, 2, 2, 2]),), Shape(4))
    assert layout.place(codes) == [2, 6, 10, 2] and layout.size == 12


def test_flattened_puts_the_books_of_a_frame_behind_one_another():
    codes = Codes((torch.tensor([1, 2]), torch.tensor([0, 3])), Shape(2))
    layout = Flattened([10, 4])
    assert layout.place(codes) == [1, 10, 2, 13] and layout.size == 14
    assert [layout.allowed(step) for step in range(3)] == [(0, 10), (10, 14), (0, 10)]


@pytest.mark.parametrize(
    "books,frames",
    [(([1],), 1), (([1, 2], [0]), 2), (([1], [4]), 1), (([-1], [0]), 1), (([1], [0]), 2)],
    ids=["one book", "two rates", "too large", "negative", "other shape"],
)
def test_codes_that_do_not_fit_are_refused(books, frames):
    with pytest.raises(ShapeError):
        Flattened([10, 4]).place(Codes(tuple(torch.tensor(book) for book in books), Shape(frames)))


@pytest.mark.parametrize("slots", [[1], [1, 9], [1, 14], [1, 10, 2]])
def test_slots_that_cannot_be_codes_are_refused(slots):
    with pytest.raises(ShapeError):
        Flattened([10, 4]).read(slots, Shape(1))


def test_a_layout_needs_codebooks():
    with pytest.raises(ConfigError):
        Flattened([])
