from __future__ import annotations

import pytest
import torch

from omniloom.encoders.clock import clock_of, regular, resampled

ROWS = torch.tensor([[0.0], [10.0], [20.0], [30.0]])


def test_rows_of_one_time_are_spread_until_the_next():
    # Two pitches every 0.2 s: the second lies in the middle; the last pair lasts as long as the one before.
    assert clock_of((0.0, 0.0, 0.2, 0.2)).tolist() == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_times_of_their_own_stay_as_they_are():
    assert clock_of((0.0, 0.3, 0.4)).tolist() == [0.0, 0.3, 0.4]


@pytest.mark.parametrize(
    "times,rate_hz,expected",
    [
        ((0.0, 0.5, 1.0), 2, [0.0, 0.5, 1.0]),
        ((0.0, 0.5, 1.0), 4, [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]),
        ((0.0, 0.5, 1.0), 1, [0.0]),
        ((0.0, 0.5), 0.1, [0.0]),
        ((0.0,), 10, [0.0]),
        (tuple(round(i / 7, 6) for i in range(7)), 10, [i / 10 for i in range(10)]),
    ],
)
def test_a_regular_clock_ends_with_the_last_row(times, rate_hz, expected):
    assert regular(clock_of(times), rate_hz).tolist() == pytest.approx(expected)


def test_the_nearest_row_is_taken_and_of_two_the_earlier():
    clock, wanted = torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([0.4, 0.5, 0.6, 2.0, 9.0])
    assert resampled(ROWS, clock, wanted, "nearest")[:, 0].tolist() == [0, 0, 10, 20, 30]


def test_rows_between_are_mixed_by_their_distance():
    clock, wanted = torch.tensor([0.0, 1.0, 2.0, 4.0]), torch.tensor([0.25, 1.0, 3.0, 9.0])
    assert resampled(ROWS, clock, wanted, "linear")[:, 0].tolist() == [2.5, 10, 25, 30]


def test_one_row_is_repeated_wherever_it_is_wanted():
    one, wanted = torch.tensor([[7.0]]), torch.tensor([0.0, 1.0])
    for sampling in ("nearest", "linear"):
        assert resampled(one, torch.tensor([0.0]), wanted, sampling)[:, 0].tolist() == [7, 7]
