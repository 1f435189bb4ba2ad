from __future__ import annotations

import pytest
import torch

from omniloom.encoders.series_conv import SeriesConv
from omniloom.errors import ConfigError
from omniloom.sequence import Shape


@pytest.mark.parametrize("steps,rows", [(1, 1), (8, 1), (9, 2), (64, 8)])
def test_a_row_covers_stride_steps(steps, rows):
    part = SeriesConv(channels=2, width=16, heads=2)
    assert part([torch.zeros(steps, 2)]).lengths == [rows] and part.out_shape(Shape(steps)).len == rows


def test_rows_start_when_their_first_step_starts():
    part = SeriesConv(channels=2, width=16, heads=2, stride=4)
    assert part.out_shape(Shape(9, times=tuple(i / 10 for i in range(9)))).times == (0.0, 0.4, 0.8)


def test_a_much_longer_neighbour_changes_nothing():
    part, short = SeriesConv(channels=2, width=16, heads=2).eval(), torch.randn(5, 2)
    torch.testing.assert_close(part([short, 100 * torch.randn(400, 2)]).x[:1], part([short]).x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{"stride": 6}, {"kernel": 4}, {"width": 15}, {"channels": 0}, {"heads": 3}], ids=str
)
def test_sizes_that_do_not_fit_are_refused(options):
    with pytest.raises(ConfigError):
        SeriesConv(**options)
