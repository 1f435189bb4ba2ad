from __future__ import annotations

import math

import pytest
import torch

from omniloom.errors import ConfigError, ShapeError
from omniloom.projectors import Context
from omniloom.projectors.rotary_time import RotaryTime
from omniloom.sequence import Packed, Shape


def turned(part, rows, *times):
    return part(Packed(rows, (Shape(len(times), times=times),)), Context()).x


def test_the_first_pair_of_omcat_turns_once_a_second_backwards():
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    out = turned(RotaryTime(2, 9), rows, 0.0, 0.25, 1.0)
    torch.testing.assert_close(out, torch.tensor([[1.0, 0.0], [0.0, -1.0], [1.0, 0.0]]))


def test_the_first_pair_of_omnivinci_turns_once_in_the_longest_time_and_the_last_slowest():
    part = RotaryTime(4, 9, max_time_s=60.0, base=4.0)
    out = turned(part, torch.tensor([[1.0, 0.0, 1.0, 0.0]]), 15.0)
    # A quarter of a turn; base 4 to the power of 1/2 makes the second pair half as fast.
    half = math.sqrt(0.5)
    torch.testing.assert_close(out, torch.tensor([[0.0, 1.0, half, half]]))


def test_products_of_rows_depend_on_how_far_apart_they_are():
    torch.manual_seed(0)
    part, rows = RotaryTime(8, 9), torch.randn(2, 8)
    early, late = (turned(part, rows, start, start + 1.3) for start in (0.0, 40.0))
    torch.testing.assert_close(early[0] @ early[1], late[0] @ late[1])
    assert not torch.allclose(early[1], late[1])


def test_an_hour_is_as_exact_as_a_second():
    rows = torch.tensor([[1.0, 0.0]])
    torch.testing.assert_close(turned(RotaryTime(2, 9), rows, 3600.25), turned(RotaryTime(2, 9), rows, 0.25))


def test_rows_without_times_and_odd_widths_are_refused():
    with pytest.raises(ShapeError, match="without times"):
        RotaryTime(2, 9).out_shape(Shape(3))
    with pytest.raises(ConfigError, match="even width"):
        RotaryTime(3, 9)
