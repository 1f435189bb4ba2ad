from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omniloom.codecs.fsq import FSQ
from omniloom.errors import ConfigError, ShapeError

LEVELS = st.lists(st.integers(2, 9), min_size=1, max_size=4)


@given(LEVELS)
@settings(deadline=None, max_examples=40)
def test_every_id_is_a_point_of_its_own_within_the_bounds(levels):
    fsq = FSQ(levels)
    points = fsq.from_ids(torch.arange(fsq.size))
    assert len({tuple(point) for point in points.tolist()}) == fsq.size
    assert points.min() >= -1 and points.max() <= 1


@given(LEVELS, st.integers(0, 100))
@settings(deadline=None, max_examples=40)
def test_ids_name_the_point_that_the_forward_pass_gives(levels, seed):
    fsq = FSQ(levels)
    z = 4 * torch.randn(20, len(levels), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(fsq.from_ids(fsq.to_ids(z)), fsq(z), atol=1e-6, rtol=0)


def test_all_levels_are_reached():
    fsq, z = FSQ([8, 5, 2]), torch.linspace(-6, 6, 4001)[:, None].expand(-1, 3)
    assert [len(fsq(z)[:, index].round(decimals=4).unique()) for index in range(3)] == [8, 5, 2]


def test_the_gradient_passes_the_rounding():
    z = torch.randn(10, 3, requires_grad=True)
    FSQ([8, 5, 5])(z).sum().backward()
    assert bool((z.grad > 0).all())


def test_ids_outside_the_codebook_are_refused():
    with pytest.raises(ShapeError, match="0 to 24"):
        FSQ([5, 5]).from_ids(torch.tensor([25]))


@pytest.mark.parametrize("levels", [[], [1, 5]])
def test_levels_that_hold_nothing_are_refused(levels):
    with pytest.raises(ConfigError):
        FSQ(levels)
