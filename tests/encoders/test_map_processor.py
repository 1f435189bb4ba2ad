"""Maps become raw tensors: hand-calculated values of every option."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import CLIPVisionConfig

from omniloom.encoders.hub_vision import HubVision
from omniloom.encoders.map_processor import MapProcessor
from omniloom.encoders.patch_vit import PatchViT
from omniloom.errors import ConfigError, MediaError
from omniloom.media import Map
from omniloom.registry import build, spec_of
from omniloom.testing import check_encoder, check_processor, made_payloads

PLAIN = {"size_px": 2, "mean": 0.0, "std": 1.0}


def of(*lines: list[float]) -> Map:
    return Map(np.array([lines], np.float32))


@pytest.mark.parametrize(
    "options,expected",
    [
        ({"scale": "none"}, [1.0, 2.0, 4.0, 0.0]),
        ({"scale": "item"}, [0.25, 0.5, 1.0, 0.0]),
        ({"scale": "range", "low": 0, "high": 10}, [0.1, 0.2, 0.4, 0.0]),
        ({"scale": "none", "low": 1, "high": 3}, [1.0, 2.0, 3.0, 1.0]),
        # Reciprocals of 1, 2 and 4; the 0 that saw nothing becomes the farthest, 1 / 4.
        ({"scale": "none", "values": "inverse"}, [1.0, 0.5, 0.25, 0.25]),
        ({"scale": "range", "values": "inverse", "low": 1, "high": 2}, [1.0, 0.0, 0.0, 0.0]),
        ({"scale": "none", "values": "log"}, [0.0, 0.6931472, 1.3862944, 0.0]),
        ({"scale": "range", "values": "log", "low": 1, "high": 4}, [0.0, 0.5, 1.0, 0.0]),
        ({"scale": "none", "mean": 1.0, "std": 2.0}, [0.0, 0.5, 1.5, -0.5]),
    ],
)
def test_numbers_are_clipped_bent_scaled_and_normalised_in_that_order(options, expected):
    raw = MapProcessor(**{**PLAIN, **options})(of([1, 2], [4, 0]))
    torch.testing.assert_close(raw.flatten(), torch.tensor(expected), atol=1e-6, rtol=1e-6)


def test_a_map_that_saw_nothing_is_zero():
    assert torch.equal(MapProcessor(**PLAIN, values="inverse", scale="none")(of([0, 0], [0, 0])), torch.zeros(1, 2, 2))


def test_a_flat_map_is_finite():
    assert torch.equal(MapProcessor(**PLAIN)(of([5, 5], [5, 5])), torch.zeros(1, 2, 2))


def test_one_channel_is_repeated_to_three_and_three_stay():
    raw = MapProcessor(**PLAIN, channels=3)(of([1, 2], [4, 0]))
    assert raw.shape == (3, 2, 2) and torch.equal(raw[0], raw[2])
    normals = Map(np.random.default_rng(0).normal(size=(3, 2, 2)).astype(np.float32))
    assert torch.equal(MapProcessor(**PLAIN, channels=3, scale="none")(normals), torch.from_numpy(normals.values))


def test_a_flow_of_two_channels_stays_two_and_is_refused_where_three_are_needed():
    flow = Map(np.ones((2, 4, 4), np.float32))
    assert MapProcessor(size_px=4)(flow).shape == (2, 4, 4)
    with pytest.raises(MediaError, match="invalid_map"):
        MapProcessor(size_px=4, channels=3)(flow)


def test_the_nearest_number_invents_none():
    steps = Map(np.repeat(np.repeat([[[1.0, 7.0], [3.0, 5.0]]], 5, 1), 5, 2).astype(np.float32))
    plain = MapProcessor(size_px=7, smooth=False, scale="none", mean=0.0, std=1.0)(steps)
    assert set(plain.flatten().tolist()) == {1.0, 3.0, 5.0, 7.0}
    smooth = MapProcessor(size_px=7, scale="none", mean=0.0, std=1.0)(steps)
    assert len(set(smooth.flatten().tolist())) > 8


def test_the_middle_of_a_long_map_is_taken():
    wide = Map(np.arange(12, dtype=np.float32).reshape(1, 2, 6))
    raw = MapProcessor(**PLAIN, crop=True, scale="none")(wide)
    assert raw[0].tolist() == [[2.0, 3.0], [8.0, 9.0]]


def test_augmentation_comes_from_the_rng_alone():
    part, source = MapProcessor(size_px=8, flip=True, shift_px=2), next(made_payloads("map"))[0]
    one, two = (part(source, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two) and torch.equal(part(source), part(source))
    assert any(not torch.equal(part(source, torch.Generator().manual_seed(s)), part(source)) for s in range(4))


@pytest.mark.parametrize(
    "options",
    [
        {"size_px": 0},
        {"channels": 2},
        {"values": "sqrt"},
        {"scale": "range", "low": 1},
        {"low": 3, "high": 2},
        {"values": "log", "low": 0, "high": 5},
    ],
)
def test_options_that_cannot_be_together_are_refused(options):
    with pytest.raises(ConfigError):
        MapProcessor(**options)


def test_it_keeps_every_law_before_the_encoders_that_read_it():
    payloads = next(made_payloads("map", channels=(1,)))
    check_processor(MapProcessor(flip=True), payloads)
    check_encoder(PatchViT(channels=1, width=16, heads=2, depth=1), MapProcessor(), payloads)


def test_a_published_tower_reads_depth_as_a_picture(tmp_path):
    CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
    ).save_pretrained(tmp_path)
    processor, part = MapProcessor(size_px=16, channels=3), HubVision(id=str(tmp_path), weights=False)
    raw = processor(next(made_payloads("map"))[0])
    assert part([raw]).shapes == (part.out_shape(processor.shape(raw)),)


def test_a_spec_read_back_builds_an_equal_processor():
    part = build("processors", {"type": "map", "values": "inverse", "low": 0.1, "high": 10.0, "scale": "range"})
    read = spec_of("processors", part)
    assert read["values"] == "inverse" and spec_of("processors", build("processors", read)) == read
