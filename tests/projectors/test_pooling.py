from __future__ import annotations

import pytest
import torch

from omniloom.errors import ShapeError
from omniloom.projectors import Context
from omniloom.projectors.pooling import Average, Pool, Stack
from omniloom.sequence import Packed, Shape


def test_pool_averages_neighbouring_rows():
    rows = torch.tensor([[0.0], [2.0], [4.0], [8.0]])
    assert Pool(1, 1, tokens=2)(Packed.of([rows]), Context()).x.tolist() == [[1.0], [6.0]]


def test_pool_repeats_rows_where_an_item_has_fewer_than_tokens():
    rows = torch.tensor([[1.0], [3.0]])
    assert Pool(1, 1, tokens=4)(Packed.of([rows]), Context()).x.tolist() == [[1.0], [1.0], [3.0], [3.0]]


def test_pool_keeps_its_width_whatever_was_wired():
    assert Pool(6, 99).out_dim == 6


def test_pooled_rows_start_when_their_first_row_starts():
    assert Pool(1, 1, tokens=2).out_shape(Shape(4, times=(0.0, 1.0, 2.0, 3.0))).times == (0.0, 2.0)
    assert Pool(1, 1, tokens=3).out_shape(Shape(2, times=(0.0, 1.0))).times == (0.0, 0.0, 1.0)


def test_stack_puts_neighbours_side_by_side_and_fills_with_zeros():
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    out = Stack(2, 99, factor=2)(Packed.of([rows]), Context())
    assert out.x.tolist() == [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 0.0, 0.0]]
    assert Stack(2, 99, factor=2).out_dim == 4


def test_stack_never_mixes_two_items():
    out = Stack(1, 1, factor=2)(Packed.of([torch.ones(3, 1), 2 * torch.ones(1, 1)]), Context())
    assert out.x.tolist() == [[1.0, 1.0], [1.0, 0.0], [2.0, 0.0]]


def test_average_is_the_mean_of_neighbours_and_of_what_is_left():
    out = Average(1, 1, factor=2)(Packed.of([torch.tensor([[1.0], [3.0], [8.0]]), torch.tensor([[5.0]])]), Context())
    assert out.x.tolist() == [[2.0], [8.0], [5.0]] and out.lengths == [2, 1]


def test_average_of_all_rows_is_one_row_an_item():
    out = Average(1, 1, factor=None)(Packed.of([torch.tensor([[1.0], [3.0], [8.0]]), torch.tensor([[5.0]])]), Context())
    assert out.x.tolist() == [[4.0], [5.0]]


def test_averaged_rows_start_when_their_first_row_starts():
    assert Average(1, 1, factor=2).out_shape(Shape(3, times=(0.0, 0.5, 1.0))).times == (0.0, 1.0)


def test_average_over_frames_meets_each_cell_by_itself_and_keeps_the_grid():
    cells = torch.arange(12.0)[:, None]  # 3 frames of 2 x 2
    shape = Shape(12, (3, 2, 2), tuple(0.5 * (row // 4) for row in range(12)))
    out = Average(1, 1, factor=2, over="frames")(Packed(cells, (shape,)), Context())
    assert out.x.flatten().tolist() == [2.0, 3.0, 4.0, 5.0, 8.0, 9.0, 10.0, 11.0]
    assert out.shapes == (Shape(8, (2, 2, 2), (0.0,) * 4 + (1.0,) * 4),)
    whole = Average(1, 1, factor=None, over="frames")(Packed(cells, (shape,)), Context())
    assert whole.x.flatten().tolist() == [4.0, 5.0, 6.0, 7.0] and whole.shapes[0].grid == (1, 2, 2)


def test_average_over_frames_refuses_rows_without_a_grid_and_tiles():
    part = Average(1, 1, over="frames")
    with pytest.raises(ShapeError, match="6 rows without a grid"):
        part.out_shape(Shape(6))
    with pytest.raises(ShapeError, match="tiles"):
        part.out_shape(Shape(3, (3, 1, 1), mosaic=(1, 2, 2, 1)))
