"""The arrangement of tiles is that of transformers' LLaVA-NeXT and LLaVA-OneVision."""

from __future__ import annotations

import types

import pytest
import torch
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

from omniloom.projectors import Context
from omniloom.projectors.mosaic import Mosaic
from omniloom.sequence import Packed, Shape

SIDE, CELLS = 336, 6  # pixels and cells of a tile's side
PINPOINTS = [[SIDE * rows, SIDE * columns] for rows in range(1, 7) for columns in range(1, 7)]
SIZES = [(672, 672), (1000, 500), (333, 1200), (500, 501), (97, 2000), (2016, 2016), (1900, 1200), (2000, 50)]


def published(model):
    vision = types.SimpleNamespace(image_size=SIDE, patch_size=SIDE // CELLS)
    config = types.SimpleNamespace(vision_config=vision, image_grid_pinpoints=PINPOINTS)
    return lambda *args, **more: model.pack_image_features(types.SimpleNamespace(config=config), *args, **more)


def tiled(height, width):
    """(features of the whole and its tiles, our item) for a picture of that size."""
    best = select_best_resolution((height, width), PINPOINTS)
    rows, columns = best[0] // SIDE, best[1] // SIDE
    tiles = 1 + rows * columns
    generator = torch.Generator().manual_seed(height)
    features = torch.randn(tiles, CELLS * CELLS, 3, generator=generator)
    shape = Shape(tiles * CELLS * CELLS, (tiles, CELLS, CELLS), mosaic=(rows, columns, height, width))
    return features, Packed(features.flatten(0, 1), (shape,))


@pytest.mark.parametrize("size", SIZES)
def test_it_is_the_packing_of_llava_next(size):
    features, packed = tiled(*size)
    part = Mosaic(3, 99)
    (expected,), _ = published(LlavaNextModel)([features], torch.tensor([size]), "default", part.line_end)
    out = part(packed, Context())
    assert out.shapes == (part.out_shape(packed.shapes[0]),)
    torch.testing.assert_close(out.x, expected)


@pytest.mark.parametrize("tiles", [4, 9])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_the_packing_of_llava_onevision(size, tiles):
    features, packed = tiled(*size)
    part = Mosaic(3, 99, max_tiles=tiles)
    (expected,), _ = published(LlavaOnevisionModel)(
        [features], torch.tensor([size]), part.line_end, vision_aspect_ratio=f"anyres_max_{tiles}"
    )
    torch.testing.assert_close(part(packed, Context()).x, expected, atol=1e-5, rtol=1e-5)


def test_the_largest_grid_is_interpolated_to_the_tiles_it_may_have():
    assert Mosaic(3, 9, newline=False, max_tiles=9).out_shape(tiled(2016, 2016)[1].shapes[0]).len == 36 + 18 * 18


def test_a_picture_without_tiles_ends_in_one_learned_row():
    part = Mosaic(3, 99)
    features = torch.randn(1, 36, 3)
    (expected,), _ = published(LlavaNextModel)([features], torch.tensor([[99, 99]]), "default", part.line_end)
    out = part(Packed(features[0], (Shape(36, (1, 6, 6), (0.5,) * 36),)), Context())
    torch.testing.assert_close(out.x, expected)
    assert out.shapes == (Shape(37, times=(0.5,) * 37),)


def test_without_newlines_an_item_without_tiles_stays_as_it_is():
    packed = Packed(torch.randn(4, 3), (Shape(4, (1, 2, 2)),))
    out = Mosaic(3, 9, newline=False)(packed, Context())
    assert torch.equal(out.x, packed.x) and out.shapes == packed.shapes
