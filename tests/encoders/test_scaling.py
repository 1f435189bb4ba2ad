"""Scaling by 8-bit pixels in a fixed order: the numbers of torch's own, whichever Pillow is installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from omniloom.encoders.scaling import scaled
from tests.encoders.rounding import noise

SIZES = [
    ((640, 97), (384, 384)),
    ((300, 200), (224, 160)),
    ((50, 211), (96, 96)),
    ((7, 3), (224, 96)),
    ((1, 1), (9, 5)),
]


@pytest.mark.parametrize("size,target", SIZES)
@pytest.mark.parametrize("resample,mode", [(2, "bilinear"), (3, "bicubic")])
def test_tall_and_wide_pictures_are_those_of_torch_up_to_rounding(size, target, resample, mode):
    pixels = noise(*size)
    picture = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(picture, target, mode=mode, antialias=True)[0].permute(1, 2, 0)
    differences = np.asarray(scaled(Pillow.fromarray(pixels), *target, resample)).astype(int) - expected.numpy()
    assert np.abs(differences).max() <= 2 and np.abs(differences).mean() < 0.05


@pytest.mark.parametrize("resample", range(6))
def test_a_picture_that_pillow_scales_along_x_first_is_as_pillow_makes_it(resample):
    picture = Pillow.fromarray(noise(40, 90))
    assert np.array_equal(scaled(picture, 50, 60, resample), picture.resize((60, 50), Pillow.Resampling(resample)))
