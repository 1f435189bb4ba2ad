from __future__ import annotations

import pytest

from omniloom.errors import ConfigError, ShapeError
from omniloom.projectors.windowing import cut, cut_lengths
from omniloom.sequence import Shape


def test_rows_are_cut_by_their_number_item_by_item():
    windows = cut((Shape(5), Shape(2)), 2, in_time=False)
    assert windows.keys == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert windows.counts == [2, 2, 1, 2] and windows.starts == [0, 2, 4, 0]
    assert windows.per_item == [3, 1] and windows.order is None


def test_rows_are_cut_by_their_clock_and_an_empty_window_is_left_out():
    (length,) = cut_lengths((), (0.5,))
    windows = cut((Shape(4, times=(0.0, 0.4, 0.5, 1.6)),), length, in_time=True)
    assert windows.keys == [(0, 0), (0, 1), (0, 3)]
    assert windows.counts == [2, 1, 1] and windows.starts == [0, 2, 3]


def test_tenths_of_a_second_are_cut_exactly():
    # 0.3 / 0.1 is 2.9999999999999996 in floating point.
    (length,) = cut_lengths((), (0.1,))
    times = tuple(0.1 * step for step in range(50))
    assert [index for _, index in cut((Shape(50, times=times),), length, in_time=True).keys] == list(range(50))


def test_rows_out_of_order_are_put_in_order():
    windows = cut((Shape(1, times=(0.0,)), Shape(3, times=(1.0, 0.0, 2.0))), 1_000_000, in_time=True)
    assert windows.order == [0, 2, 1, 3] and windows.starts == [0, 1, 0, 2]


def test_rows_without_a_clock_cannot_be_cut_in_seconds():
    with pytest.raises(ShapeError, match="item 0 has 3 rows without times"):
        cut((Shape(3),), 500_000, in_time=True)


@pytest.mark.parametrize("windows,seconds", [((), None), ((0,), None), ((3, 10), None), ((), (0.0,)), ((), (0.2, 0.5))])
def test_windows_that_do_not_fit_into_the_longest_are_refused(windows, seconds):
    with pytest.raises(ConfigError):
        cut_lengths(windows, seconds)
