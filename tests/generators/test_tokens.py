"""What may come next in an answer, and what it was."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omniloom.codecs.layouts import Flattened
from omniloom.generators import CodeOutput, TokenStream
from omniloom.sequence import Shape, Vocabulary

VOCABULARY = Vocabulary.of(10, {"a": 7, "b": 2})
A, B = VOCABULARY.blocks["a"], VOCABULARY.blocks["b"]
OUTPUTS = {
    "a": CodeOutput(A, Flattened((4, 3)), Shape(2), lambda codes: codes),
    "b": CodeOutput(B, Flattened((2,)), Shape(1), lambda codes: codes),
}
STOP = frozenset({3})


def stream(**options) -> TokenStream:
    return TokenStream(VOCABULARY, OUTPUTS, STOP, **options)


def allowed(row: TokenStream) -> set[int]:
    return set(torch.isfinite(row.allow(torch.zeros(VOCABULARY.size))).nonzero()[:, 0].tolist())


def test_text_may_go_on_or_begin_any_output():
    assert allowed(stream()) == {*range(10), A.begin, B.begin}


def test_only_wanted_outputs_may_begin():
    assert allowed(stream(wanted=frozenset({"b"}))) == {*range(10), B.begin}
    assert allowed(stream(wanted=frozenset())) == set(range(10))


def test_a_required_output_begins_at_once_and_then_text_is_free():
    row = stream(required="b")
    assert allowed(row) == {B.begin}
    for token in (B.begin, B.first, B.end):
        row.push(token)
    assert allowed(row) == {*range(10), A.begin, B.begin}


def test_inside_a_block_every_slot_has_the_ids_of_its_codebook_and_then_the_end():
    row = stream()
    row.push(A.begin)
    for step in range(4):
        low, high = (0, 4) if step % 2 == 0 else (4, 7)
        assert allowed(row) == set(range(A.first + low, A.first + high))
        row.push(A.first + low)
    assert allowed(row) == {A.end}
    row.push(A.end)
    assert row.inside is None and row.parts == [("a", [0, 4, 0, 4])]


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_whatever_is_drawn_from_what_is_allowed_can_be_read_back(seed, steps):
    draw = torch.Generator().manual_seed(seed)
    row, pushed = stream(), []
    while not row.is_done and len(pushed) < steps:
        choices = sorted(allowed(row))
        pushed.append(choices[int(torch.randint(len(choices), (), generator=draw))])
        row.push(pushed[-1])
    for kind, tokens in row.parts:
        if kind != "text" and (kind, tokens) != row.parts[-1]:
            OUTPUTS[kind].layout.read(tokens, OUTPUTS[kind].shape)
    said = [token for kind, tokens in row.parts if kind == "text" for token in tokens]
    assert said == [token for token in pushed if token < 10 and token not in STOP]
    assert row.finish == ("stop" if row.is_done else "length") and row.is_done == (pushed[-1] in STOP)


def test_a_mask_is_needed_only_where_there_are_outputs():
    assert stream().needs_mask and not TokenStream(Vocabulary.of(10, {}), {}, STOP).needs_mask


@pytest.mark.parametrize(("token", "route"), [(4, 0), (A.begin, 0), (A.end, 0), (A.first, 2), (B.first + 1, 3)])
def test_codes_have_the_route_of_their_modality_and_all_else_has_none(token, route):
    assert stream().route_of(token, ("x", "a", "b")) == route
