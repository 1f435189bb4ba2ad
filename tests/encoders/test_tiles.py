"""Tiles of a large picture: the numbers of transformers' own processors, and encoders that keep them in place."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import (
    GotOcr2ImageProcessorPil,
    LlavaNextImageProcessorPil,
    LlavaOnevisionImageProcessorPil,
    MiniCPMV4_6ImageProcessorPil,
    SiglipVisionConfig,
)

from omniloom.encoders.hub_vision import HubVision
from omniloom.encoders.patch_vit import PatchViT
from omniloom.encoders.tiles import TilesProcessor
from omniloom.errors import ConfigError
from omniloom.media import Image
from omniloom.registry import build, spec_of
from omniloom.sequence import Shape, same_raw
from tests.encoders.rounding import assert_rounded, noise, soft_noise

SIZES = [(60, 90), (32, 32), (31, 9), (17, 300), (250, 333), (100, 201)]
TALL = [(200, 40), (333, 250), (90, 60)]
_SMALL = {"sizes_px": [[32, 64], [64, 32], [64, 64], [32, 96]], "size_px": 32}


def picture(height: int, width: int) -> Image:
    return Image(noise(height, width))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [LlavaNextImageProcessorPil, LlavaOnevisionImageProcessorPil])
def test_the_best_of_a_list_of_sizes_is_cut_as_transformers_does(kind, size, tmp_path):
    sides = {"height": 32, "width": 32}
    published = kind(size=sides, crop_size=sides, image_grid_pinpoints=_SMALL["sizes_px"])
    published.save_pretrained(tmp_path)
    image = picture(*size)
    raw = TilesProcessor(id=str(tmp_path))(image)
    expected = published(image.pixels, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(raw["pixels"], expected, atol=1e-6, rtol=1e-6)
    rows, columns, height, width = raw["mosaic"].tolist()
    assert rows * columns + 1 == len(expected) and (height, width) == size


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("most", [1, 4, 12])
def test_the_grid_of_the_nearest_proportions_is_cut_as_transformers_does(size, most, tmp_path):
    published = GotOcr2ImageProcessorPil(size={"height": 32, "width": 32}, crop_to_patches=True, max_patches=most)
    published.save_pretrained(tmp_path)
    image = picture(*size)
    raw = TilesProcessor(id=str(tmp_path), max_tiles=most)(image)
    expected = published(image.pixels, return_tensors="pt")["pixel_values"]
    whole_first = torch.cat([expected[-1:], expected[:-1]])  # it puts the whole behind its tiles
    torch.testing.assert_close(raw["pixels"], whole_first, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("size", TALL)
@pytest.mark.parametrize("kind", [LlavaOnevisionImageProcessorPil, GotOcr2ImageProcessorPil])
def test_tall_pictures_are_cut_as_transformers_does_up_to_rounding(kind, size, tmp_path):
    rule = {"crop_to_patches": True, "max_patches": 4}
    if kind is LlavaOnevisionImageProcessorPil:
        rule = {"image_grid_pinpoints": _SMALL["sizes_px"]}
    published = kind(size={"height": 32, "width": 32}, **rule)
    published.save_pretrained(tmp_path)
    pixels = soft_noise(*size)
    raw = TilesProcessor(id=str(tmp_path))(Image(pixels))["pixels"]
    expected = published(pixels, return_tensors="pt")["pixel_values"]
    expected = expected[0] if expected.dim() == 5 else torch.cat([expected[-1:], expected[:-1]])
    assert_rounded(raw, expected, published.image_std)


@pytest.mark.parametrize("size", [*SIZES, *TALL, (1000, 700), (448, 449), (2000, 2000), (120, 3000)])
def test_the_grid_by_area_is_that_of_minicpm(size):
    published = MiniCPMV4_6ImageProcessorPil().get_sliced_grid(size, 9, 64) or [0, 0]
    raw = TilesProcessor(rule="area", size_px=64, max_tiles=9)(picture(*size))
    assert raw["mosaic"][:2].tolist() == published


def test_tiles_lie_row_by_row():
    pixels = np.zeros((64, 96, 3), np.uint8)
    for row in range(2):
        for column in range(3):
            pixels[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32] = 40 * (3 * row + column)
    raw = TilesProcessor(rule="proportions", size_px=32, max_tiles=6)(Image(pixels))
    means = raw["pixels"][1:].mean((1, 2, 3))
    assert raw["mosaic"].tolist() == [2, 3, 64, 96] and bool((means.diff() > 0).all())


def test_a_picture_that_is_one_tile_comes_alone():
    part = TilesProcessor(rule="proportions", size_px=32, max_tiles=9)
    raw = part(picture(20, 20))
    assert raw["pixels"].shape == (1, 3, 32, 32) and part.shape(raw) == Shape(1024, (1, 32, 32))


def test_the_shape_says_how_tiles_lie():
    part = TilesProcessor(**_SMALL)
    assert part.shape(part(picture(60, 90))) == Shape(5 * 1024, (5, 32, 32), mosaic=(2, 2, 60, 90))


def test_encoders_keep_tiles_in_place(tmp_path):
    torch.manual_seed(0)
    SiglipVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    ).save_pretrained(tmp_path)
    processor = TilesProcessor(**_SMALL)
    raws = [processor(picture(60, 90)), processor(picture(30, 30))]
    for part in (HubVision(id=str(tmp_path), weights=False), PatchViT(width=16, heads=2, depth=1)):
        out = part.eval()(raws)
        assert out.shapes == tuple(part.out_shape(processor.shape(raw)) for raw in raws)
        assert out.shapes[0] == Shape(80, (5, 4, 4), mosaic=(2, 2, 60, 90))


def test_a_tower_reads_every_tile_as_a_picture_of_its_own(tmp_path):
    SiglipVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    ).save_pretrained(tmp_path)
    part = HubVision(id=str(tmp_path), weights=False).eval()
    raw = TilesProcessor(**_SMALL)(picture(60, 90))
    torch.testing.assert_close(part([raw]).x, part(list(raw["pixels"])).x, atol=1e-6, rtol=1e-6)


def test_sizes_that_tiles_do_not_fill_are_refused():
    for options in ({"size_px": 32}, {"rule": "most"}, {"sizes_px": []}):
        with pytest.raises(ConfigError, match="tiles"):
            TilesProcessor(**{"sizes_px": [[32, 40]], "size_px": 32} | options)


@pytest.mark.parametrize("option", [{"crop_size": 224}, {"min_patches": 2}, {"do_rescale": False}])
def test_a_file_that_asks_for_what_is_not_computed_is_refused(option, tmp_path):
    config = {"image_processor_type": "LlavaNextImageProcessor", "size": 336, **option}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"224|min_patches|do_rescale"):
        TilesProcessor(id=str(tmp_path))


def test_a_saved_configuration_builds_the_same_processor(tmp_path):
    part = TilesProcessor()
    part.save_config(tmp_path)
    image = picture(70, 100)
    assert same_raw(part(image), TilesProcessor(id=str(tmp_path))(image))


def test_a_spec_read_back_builds_an_equal_processor():
    part = build("processors", {"type": "tiles", **_SMALL, "rule": "sizes"})
    read = spec_of("processors", part)
    assert read["rule"] == "sizes" and spec_of("processors", build("processors", read)) == read
