from __future__ import annotations

import numpy as np
import pytest
import torch

from omniloom.encoders.vector import VectorEncoder, VectorProcessor
from omniloom.errors import ConfigError, MediaError, ShapeError
from omniloom.media import Series, load
from omniloom.sequence import Shape


@pytest.mark.parametrize("shape", [(1, 5), (5, 1)], ids=["one step", "one channel"])
def test_one_step_and_one_channel_are_the_same_vector(shape):
    values = np.arange(5, dtype=np.float32)
    part = VectorProcessor(length=5)
    raw = part(Series(values.reshape(shape)))
    assert torch.equal(raw, torch.arange(5.0)) and part.shape(raw) == Shape(5)


def test_a_file_of_one_row_of_numbers_is_a_vector(tmp_path):
    np.save(tmp_path / "scan.npy", np.arange(15_724, dtype=np.float32))
    assert VectorProcessor(length=15_724)(load(tmp_path / "scan.npy", "series")).shape == (15_724,)


def test_a_normalized_vector_has_mean_zero_and_deviation_one():
    raw = VectorProcessor(normalize=True)(Series(np.array([[1, 2, 3, 6]], np.float32)))
    assert abs(float(raw.mean())) < 1e-6 and abs(float(raw.std(correction=0)) - 1) < 1e-6


@pytest.mark.parametrize("shape,message", [((2, 3), "2 steps of 3 channels"), ((1, 6), "expected 5")])
def test_what_is_no_vector_of_that_length_is_refused(shape, message):
    with pytest.raises(MediaError, match=message):
        VectorProcessor(length=5)(Series(np.zeros(shape, np.float32)))


def test_rows_are_cut_from_the_map_as_in_onellm():
    part = VectorEncoder(length=3, rows=2, width=4)
    vectors = torch.randn(2, 3)
    # OneLLM views the 8 outputs as (width 4, rows 2): output c * 2 + r is number c of row r.
    expected = part.map(vectors).reshape(2, 4, 2).permute(0, 2, 1)
    torch.testing.assert_close(part(list(vectors)).x.view(2, 2, 4), expected)


def test_the_published_size_has_eight_rows_of_the_trunks_width():
    with torch.device("meta"):
        part = VectorEncoder(length=15_724)
    assert part.map.weight.shape == (8192, 15_724) and part.out_shape(Shape(15_724)) == Shape(8)


def test_another_length_is_refused_before_weights_are_touched():
    with pytest.raises(ShapeError, match="reads 3"):
        VectorEncoder(length=3).out_shape(Shape(4))


@pytest.mark.parametrize(
    "make",
    [lambda: VectorEncoder(length=0), lambda: VectorEncoder(length=2, rows=0), lambda: VectorProcessor(length=0)],
)
def test_sizes_below_one_are_refused(make):
    with pytest.raises(ConfigError):
        make()
