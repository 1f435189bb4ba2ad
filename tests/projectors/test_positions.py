from __future__ import annotations

import pytest
import torch

from omniloom.errors import ShapeError
from omniloom.projectors import Context
from omniloom.projectors.positions import Positions
from omniloom.sequence import Packed, Shape


def added(part, shape):
    return part(Packed(torch.zeros(shape.len, part.in_dim), (shape,)), Context()).x


def test_rows_of_one_frame_get_the_position_of_that_frame():
    part = Positions(3, 9)
    expected = part.tables["frame"][[0, 0, 1, 1]]
    assert torch.equal(added(part, Shape(4, (2, 1, 2))), expected)


def test_rows_without_a_grid_are_windows_one_after_another():
    part = Positions(3, 9)
    assert torch.equal(added(part, Shape(3)), part.tables["frame"][:3])


def test_lines_and_cells_have_positions_of_their_own():
    part = Positions(3, 9, axes=("line", "cell"))
    expected = part.tables["line"][[0, 0, 1, 1] * 2] + part.tables["cell"][[0, 1] * 4]
    torch.testing.assert_close(added(part, Shape(8, (2, 2, 2))), expected)


def test_every_item_begins_at_the_first_position():
    part = Positions(3, 9)
    both = part(Packed(torch.zeros(3, 3), (Shape(2), Shape(1))), Context()).x
    assert torch.equal(both, part.tables["frame"][[0, 1, 0]])


def test_more_frames_than_positions_are_refused():
    with pytest.raises(ShapeError, match="has 2 of the axis 'frame', and an item has 3"):
        Positions(3, 9, max=2).out_shape(Shape(12, (3, 2, 2)))


def test_lines_of_rows_without_a_grid_are_refused():
    with pytest.raises(ShapeError, match="without a grid"):
        Positions(3, 9, axes=("line",)).out_shape(Shape(3))
