from __future__ import annotations

import torch

from omniloom.projectors import Context
from omniloom.projectors.pooling import Pool, Stack
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
