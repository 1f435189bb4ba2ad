from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from omniloom.projectors import Context
from omniloom.projectors.conv import Conv
from omniloom.sequence import Packed, Shape

PLAIN = {"norm": False, "activation": None, "project": False}


def ones(part):
    for conv in part.convs:
        torch.nn.init.ones_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
    return part


def sums(part, *values):
    return ones(part)(Packed.of([torch.tensor(values)[:, None]]), Context()).x.flatten().tolist()


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        ("causal", [1.0, 6.0, 12.0]),  # 1, 1 + 2 + 3, 3 + 4 + 5
        ("same", [3.0, 9.0, 9.0]),  # 1 + 2, 2 + 3 + 4, 4 + 5
        ("none", [6.0, 12.0]),  # 1 + 2 + 3, 3 + 4 + 5
    ],
)
def test_a_row_is_the_sum_that_its_padding_says(padding, expected):
    part = Conv(1, 1, kernels=(3,), strides=(2,), widen=(1,), padding=padding, **PLAIN)
    assert sums(part, 1.0, 2.0, 3.0, 4.0, 5.0) == expected


def test_without_padding_a_short_item_is_filled_to_one_row():
    part = Conv(1, 1, kernels=(3,), strides=(2,), widen=(1,), padding="none", **PLAIN)
    assert sums(part, 1.0, 2.0) == [3.0]


def test_a_short_item_beside_a_long_one_sees_nothing_of_it():
    part = Conv(2, 3, kernels=(5, 3), strides=(1, 2), widen=(2, 2), padding="same")
    items = [torch.randn(3, 2), torch.randn(40, 2)]
    together = list(part(Packed.of(items), Context()).items())
    torch.testing.assert_close(together[0], part(Packed.of(items[:1]), Context()).x)


def test_causal_rows_do_not_change_with_what_comes_later():
    part, rows = Conv(2, 3, kernels=(5, 5), strides=(1, 2), widen=(2, 2)), torch.randn(9, 2)
    whole = part(Packed.of([rows]), Context()).x
    torch.testing.assert_close(part(Packed.of([rows[:5]]), Context()).x, whole[:3])


def test_two_layers_of_vita_double_the_width_twice():
    torch.manual_seed(0)
    part, rows = Conv(2, 3, kernels=(5, 5), strides=(1, 2), widen=(2, 2), norm=False), torch.randn(7, 2)
    x = rows.T[None]
    for conv, stride in zip(part.convs, (1, 2), strict=True):
        x = F.relu(F.conv1d(F.pad(x, (4, 0)), conv.weight, conv.bias, stride=stride))
    assert x.shape[1] == 8
    torch.testing.assert_close(part(Packed.of([rows]), Context()).x, part.map(x[0].T))


def test_257_rows_of_a_picture_become_6_as_in_macaw():
    part = Conv(1, 1, kernels=(48,), strides=(36,), widen=(1,), padding="none")
    assert part.out_shape(Shape(257)).len == 6


def test_rows_have_the_time_of_where_their_stride_begins():
    shape = Conv(1, 1, kernels=(3, 3), strides=(2, 2), widen=(1, 1)).out_shape(
        Shape(9, times=tuple(0.5 * row for row in range(9)))
    )
    assert shape.times == (0.0, 2.0, 4.0)


def test_without_a_map_it_gives_the_width_of_its_last_layer():
    assert Conv(3, 99, kernels=(5, 5), strides=(1, 2), widen=(2, 2), project=False).out_dim == 12
