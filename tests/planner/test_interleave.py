"""Rows of one clip's items in the order of time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omniloom.errors import ConfigError, PlanError
from omniloom.planner.interleave import Chunks, Even, InOrder, Strand, Stretch
from omniloom.registry import BUILT_IN, build

strands = st.builds(
    lambda rows, step, begin: Strand(rows, [begin + step * row for row in range(rows)]),
    st.integers(1, 12),
    st.sampled_from([0.04, 0.5, 1.0, 3.0]),
    st.sampled_from([0.0, 0.5, 2.0]),
)


@pytest.mark.parametrize("name", BUILT_IN["interleavings"])
@given(st.lists(strands, min_size=1, max_size=4))
def test_every_row_stands_once_and_each_strand_in_its_order(name, given_strands):
    placed = build("interleavings", name).order(given_strands)
    for index, strand in enumerate(given_strands):
        rows = [row for stretch in placed if stretch.strand == index for row in range(stretch.first, stretch.stop)]
        assert rows == list(range(strand.rows))


@given(st.lists(strands, min_size=2, max_size=4), st.sampled_from([0.5, 1.0, 2.0]))
def test_no_row_of_a_later_chunk_stands_before_one_of_an_earlier(given_strands, every_s):
    chunks = [
        given_strands[stretch.strand].times_s[row] // every_s
        for stretch in Chunks(every_s=every_s).order(given_strands)
        for row in range(stretch.first, stretch.stop)
    ]
    assert chunks == sorted(chunks)


def test_two_seconds_of_frames_are_followed_by_two_seconds_of_sound():
    frames = Strand(6, [0, 0, 1, 1, 2, 2])
    sound = Strand(3, [0, 1.5, 2.5])
    assert Chunks(every_s=2).order([frames, sound]) == [
        Stretch(0, 0, 4),
        Stretch(1, 0, 2),
        Stretch(0, 4, 6),
        Stretch(1, 2, 3),
    ]


def test_sound_is_put_evenly_between_frames():
    """AVicuna: with 6 rows of video and 2 of sound one of sound follows every round(6 / 3) rows."""
    placed = Even().order([Strand(6, None), Strand(2, None)])
    assert [(s.strand, s.first, s.stop) for s in placed] == [(0, 0, 2), (1, 0, 1), (0, 2, 4), (1, 1, 2), (0, 4, 6)]


def test_without_interleaving_one_item_follows_another():
    assert InOrder().order([Strand(2, None), Strand(3, None)]) == [Stretch(0, 0, 2), Stretch(1, 0, 3)]


def test_rows_without_times_cannot_be_put_into_chunks():
    with pytest.raises(PlanError, match=r"item 1 of a clip has rows without times.*in_order"):
        Chunks().order([Strand(2, [0, 1]), Strand(2, None)])


def test_chunks_last_some_time():
    with pytest.raises(ConfigError, match="every_s=0"):
        Chunks(every_s=0)
