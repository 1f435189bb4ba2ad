from __future__ import annotations

import pytest
import torch

from omniloom.encoders.log_mel_conv import LogMelConv
from omniloom.errors import ConfigError
from omniloom.sequence import Shape


@pytest.mark.parametrize("frames,rows", [(1, 1), (8, 1), (9, 2), (100, 13)])
def test_a_row_covers_eight_frames(frames, rows):
    part = LogMelConv(num_mels=8, width=16, heads=2, conv_width=4)
    assert part([torch.zeros(frames, 8)]).lengths == [rows] and part.out_shape(Shape(frames)).len == rows


def test_rows_are_80_milliseconds_apart():
    part = LogMelConv(num_mels=8, width=16, heads=2)
    assert part.out_shape(Shape(20, times=tuple(i / 100 for i in range(20)))).times == (0.0, 0.08, 0.16)


def test_a_much_longer_neighbour_changes_nothing():
    part, short = LogMelConv(num_mels=8, width=16, heads=2).eval(), torch.randn(11, 8)
    together = part([short, 100 * torch.randn(300, 8)]).x[:2]
    torch.testing.assert_close(together, part([short]).x, atol=1e-5, rtol=1e-5)


def test_what_is_heard_late_reaches_the_first_row():
    part, sound = LogMelConv(num_mels=8, width=16, heads=2, depth=1).eval(), torch.randn(64, 8)
    changed = torch.cat([sound[:-8], torch.randn(8, 8)])
    assert not torch.allclose(part([sound]).x[0], part([changed]).x[0])


@pytest.mark.parametrize("options", [{"num_mels": 0}, {"width": 15}, {"conv_width": 1}, {"heads": 5}], ids=str)
def test_sizes_that_do_not_fit_are_refused(options):
    with pytest.raises(ConfigError):
        LogMelConv(**options)
