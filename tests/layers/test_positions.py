from __future__ import annotations

import math

import pytest
import torch

from omniloom.errors import ConfigError
from omniloom.layers import grid_positions, sinusoids


def test_sinusoids_are_sine_and_cosine_of_the_position():
    rows = sinusoids(torch.tensor([0, 2]), 4, base=100.0)
    expected = [[0.0, 0.0, 1.0, 1.0], [math.sin(2), math.sin(0.02), math.cos(2), math.cos(0.02)]]
    torch.testing.assert_close(rows, torch.tensor(expected))


@pytest.mark.parametrize("grid", [(1, 5, 7), (3, 2, 2), (4, 1, 1)])
def test_every_cell_of_a_grid_has_a_position_of_its_own(grid):
    rows = grid_positions(grid, 16)
    assert rows.shape == (math.prod(grid), 16) and torch.pdist(rows).min() > 0.05


def test_the_first_frame_of_a_video_has_the_positions_of_a_picture():
    torch.testing.assert_close(grid_positions((3, 2, 2), 16)[:4], grid_positions((1, 2, 2), 16))


def test_a_width_that_cannot_be_split_is_refused():
    with pytest.raises(ConfigError):
        sinusoids(torch.arange(3), 5)
    with pytest.raises(ConfigError):
        grid_positions((1, 2, 2), 6)
