from __future__ import annotations

import torch

from omniloom.encoders.point_net import PointNet, farthest_points
from omniloom.sequence import Shape


def test_the_order_of_the_points_does_not_matter():
    part, cloud = PointNet(width=16, groups=8, neighbours=6).eval(), torch.randn(60, 3)
    shuffled = cloud[torch.randperm(60)]
    torch.testing.assert_close(part([cloud]).x, part([shuffled]).x, atol=1e-5, rtol=1e-5)


def test_fewer_points_than_groups_give_one_row_each():
    part = PointNet(width=16, groups=8, neighbours=6)
    assert part([torch.randn(3, 3)]).lengths == [3] and part.out_shape(Shape(3)).len == 3


def test_the_place_of_a_group_is_part_of_its_row():
    part, cloud = PointNet(width=16, groups=4, neighbours=8, depth=0).eval(), torch.randn(40, 3)
    assert not torch.allclose(part([cloud]).x, part([cloud + 1.0]).x, atol=1e-3)


def test_points_that_are_all_one_give_finite_rows():
    assert bool(PointNet(width=16)([torch.ones(50, 3)]).x.isfinite().all())


def test_farthest_points_are_the_corners_first():
    square = torch.tensor([[0.0, 0, 0], [4, 0, 0], [0, 5, 0], [4, 5, 0], [2, 2.5, 0], [2, 2, 0]])
    assert set(farthest_points(square[None], 4)[0].tolist()) == {0, 1, 2, 3}
