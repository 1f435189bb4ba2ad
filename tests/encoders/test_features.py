from __future__ import annotations

import numpy as np
import pytest
import torch

from omniloom.encoders.features import FeaturesProcessor, Identity
from omniloom.errors import ConfigError, MediaError
from omniloom.media import Series, load
from omniloom.sequence import Shape


def test_features_of_a_file_are_the_rows_with_the_times_of_their_rate(tmp_path):
    values = np.random.default_rng(0).normal(0, 1, (3, 4)).astype(np.float32)
    np.save(tmp_path / "clip.npy", values)
    processor, encoder = FeaturesProcessor(rate_hz=2), Identity(width=4)
    raw = processor(load(tmp_path / "clip.npy", "series"))
    assert torch.equal(encoder([raw]).x, torch.from_numpy(values))
    assert encoder.out_shape(processor.shape(raw)) == Shape(3, times=(0.0, 0.5, 1.0))


def test_without_a_rate_features_have_no_times():
    processor = FeaturesProcessor()
    assert processor.shape(processor(Series(np.zeros((2, 3), np.float32), 25.0))).times is None


def test_a_rate_that_is_not_the_features_own_is_refused():
    with pytest.raises(MediaError, match="25 rows a second; expected 2"):
        FeaturesProcessor(rate_hz=2)(Series(np.zeros((2, 3), np.float32), 25.0))


def test_identity_has_nothing_to_save():
    assert Identity(width=3).state_dict() == {}


@pytest.mark.parametrize("make", [lambda: Identity(width=0), lambda: FeaturesProcessor(rate_hz=0)])
def test_sizes_of_nothing_are_refused(make):
    with pytest.raises(ConfigError):
        make()
