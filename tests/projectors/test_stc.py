from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from omniloom.errors import ShapeError
from omniloom.projectors import Context
from omniloom.projectors.stc import STC
from omniloom.sequence import Packed, Shape


def test_sixteen_frames_of_24_by_24_become_9_of_13_by_13_as_published():
    assert STC(4, 4).out_shape(Shape(16 * 576, (16, 24, 24))).grid == (9, 13, 13)
    assert STC(4, 4, padding=0).out_shape(Shape(16 * 576, (16, 24, 24))).grid == (8, 12, 12)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("grid", [(2, 2, 2), (3, 5, 4), (7, 2, 3)])
def test_it_gives_the_grid_it_declares(grid, padding):
    part = STC(4, 6, depth=1, width=8, padding=padding)
    shape = Shape(grid[0] * grid[1] * grid[2], grid)
    out = part(Packed(torch.randn(shape.len, 4), (shape,)), Context())
    assert out.shapes == (part.out_shape(shape),) and out.x.shape == (out.shapes[0].len, 6)


def test_without_bottlenecks_it_is_a_3d_convolution_and_an_mlp():
    torch.manual_seed(0)
    part, rows = STC(4, 6, depth=0), torch.randn(27, 4)
    video = rows.view(3, 3, 3, 4).permute(3, 0, 1, 2)[None]
    sampled = F.silu(F.conv3d(video, part.sampler.weight, part.sampler.bias, stride=2, padding=1))
    first, last = part.readout[0], part.readout[2]
    expected = last(F.gelu(first(sampled[0].permute(1, 2, 3, 0).flatten(0, 2))))
    torch.testing.assert_close(part(Packed(rows, (Shape(27, (3, 3, 3)),)), Context()).x, expected)


def test_the_mean_is_average_pooling_of_blocks_that_are_whole():
    part, rows = STC(1, 1, depth=0, kind="mean", padding=0, layers=1), torch.randn(3 * 5 * 4, 1)
    expected = F.avg_pool3d(rows.view(1, 1, 3, 5, 4), 2)
    out = part(Packed(rows, (Shape(60, (3, 5, 4)),)), Context())
    torch.testing.assert_close(out.x, part.readout[0](F.silu(expected).flatten()[:, None]))
    assert out.shapes[0].grid == (1, 2, 2)


def test_a_picture_is_one_frame_with_padding_and_refused_without():
    assert STC(4, 4).out_shape(Shape(4, (1, 2, 2))).grid == (1, 2, 2)
    with pytest.raises(ShapeError, match="downsample"):
        STC(4, 4, padding=0).out_shape(Shape(4, (1, 2, 2)))


def test_an_axis_that_is_not_downsampled_is_not_padded():
    assert STC(4, 4, downsample=(1, 2, 2)).out_shape(Shape(12, (3, 2, 2))).grid == (3, 2, 2)


def test_a_row_has_the_time_of_the_first_frame_it_covers():
    shape = Shape(4, (4, 1, 1), (0.0, 1.0, 2.0, 3.0))
    assert STC(4, 4).out_shape(shape).times == (0.0, 1.0, 3.0)


def test_tiles_are_not_frames():
    with pytest.raises(ShapeError, match="tiles"):
        STC(4, 4).out_shape(Shape(12, (3, 2, 2), mosaic=(1, 2, 2, 1)))
