"""How an item of a modality becomes rows, and how codes become ids."""

from __future__ import annotations

import pytest
import torch

from omniloom.errors import PlanError
from omniloom.planner import OutputPath
from omniloom.planner.paths import keep_uniform
from omniloom.sequence import Block, Codes, Shape
from tests.examples import raw_of


def test_shapes_are_composed_through_encoder_and_chain(stock):
    path = stock.rows["sound"].input
    encoded = path.encoded(raw_of("sound", 2))  # 41 frames
    assert encoded.len == 6 and path.projected(encoded).len == 3


def test_composing_shapes_touches_no_weight(stock):
    path = stock.rows["image"].input
    with torch.device("meta"):
        raw = torch.zeros(3, 16, 24)
    assert path.projected(path.encoded(raw)).grid == (1, 2, 3)


def test_one_kept_row_is_the_middle_one():
    assert keep_uniform(9, 1) == (4,) and keep_uniform(1, 1) == (0,)


class Slots:
    def __init__(self, ids, declared):
        self.ids, self.declared = ids, declared

    def place(self, codes):
        return self.ids

    def length(self, shape):
        return self.declared


CODES = Codes((torch.zeros(2, dtype=torch.long),), Shape(2))


def test_codes_get_the_ids_of_their_block():
    path = OutputPath(None, Slots([0, 3], 2), Block("a", 10, 11, 12, 4))
    assert path.slots(CODES) == [12, 15]


@pytest.mark.parametrize(
    ("ids", "declared", "message"), [([0], 2, "placed 1 slots"), ([0, 4], 2, "outside"), ([-1, 0], 2, "outside")]
)
def test_a_layout_that_breaks_its_word_is_refused(ids, declared, message):
    with pytest.raises(PlanError, match=message):
        OutputPath(None, Slots(ids, declared), Block("a", 10, 11, 12, 4)).slots(CODES)
