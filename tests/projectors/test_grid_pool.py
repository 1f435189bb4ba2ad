from __future__ import annotations

import types

import pytest
import torch
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

from omniloom.errors import ShapeError
from omniloom.projectors import Context
from omniloom.projectors.grid_pool import GridPool
from omniloom.sequence import Packed, Shape


def grid(t, y, x):
    return Packed(torch.arange(float(t * y * x))[:, None], (Shape(t * y * x, (t, y, x)),))


def test_a_stride_averages_squares_of_each_frame():
    out = GridPool(1, 1, stride=2)(grid(2, 2, 4), Context())
    assert out.x.flatten().tolist() == [2.5, 4.5, 10.5, 12.5] and out.shapes[0].grid == (2, 1, 2)


def test_at_the_edge_the_average_is_over_what_is_there():
    out = GridPool(1, 1, stride=2)(grid(1, 1, 3), Context())
    assert out.x.flatten().tolist() == [0.5, 2.0]


def test_max_takes_the_largest_of_each_channel():
    assert GridPool(1, 1, stride=2, mode="max")(grid(1, 2, 4), Context()).x.flatten().tolist() == [5.0, 7.0]


def test_cells_give_one_grid_for_every_picture():
    part = GridPool(1, 1, stride=None, cells=2)
    assert part(grid(1, 4, 4), Context()).x.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert part(grid(1, 1, 3), Context()).shapes[0].grid == (1, 2, 2)


def test_bilinear_it_is_the_pooling_of_llava_onevisions_videos():
    torch.manual_seed(0)
    frames = torch.randn(3, 27 * 27, 5)
    vision = types.SimpleNamespace(image_size=27, patch_size=1)
    theirs = LlavaOnevisionModel.apply_pooling(
        types.SimpleNamespace(config=types.SimpleNamespace(vision_config=vision)), frames
    )
    packed = Packed(frames.flatten(0, 1), (Shape(3 * 27 * 27, (3, 27, 27)),))
    out = GridPool(5, 5, mode="bilinear")(packed, Context())
    assert out.shapes[0].grid == (3, 14, 14)
    torch.testing.assert_close(out.x, theirs.flatten(0, 1))


def test_pooled_rows_have_the_time_of_the_first_cell_they_cover():
    shape = Shape(8, (1, 2, 4), tuple(float(row) for row in range(8)))
    assert GridPool(1, 1).out_shape(shape).times == (0.0, 2.0)
    assert GridPool(1, 1, stride=None, cells=1).out_shape(shape).times == (0.0,)


def test_rows_without_a_grid_are_refused():
    with pytest.raises(ShapeError, match="without a grid"):
        GridPool(1, 1).out_shape(Shape(4))
