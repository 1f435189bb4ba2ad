"""Objects of a scene: where they are, what they look like, and nothing of one in another."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omniloom.encoders.object_points import ObjectPoints
from omniloom.encoders.object_processor import ObjectsProcessor
from omniloom.errors import ConfigError, MediaError
from omniloom.media import Points
from omniloom.projectors import Context
from omniloom.projectors.objects import Objects
from omniloom.registry import build, spec_of
from omniloom.sequence import Bundle, Shape, same_raw
from omniloom.testing import check_encoder, check_processor

SMALL = {"groups": [4, 2], "neighbours": [5, 3], "radii": [0.5, 1.0], "widths": [[8, 8], [16], [12]]}


def scene(*objects: tuple[int, int, float], colours: int = 3, seed: int = 0) -> Points:
    """(number, points, where along x) of each object."""
    rng, parts = np.random.default_rng(seed), []
    for number, count, at in objects:
        xyz = rng.uniform(-1, 1, (count, 3)) * [1, 2, 0.5] + [at, 0, 0]
        parts.append(np.concatenate([xyz, rng.uniform(-1, 1, (count, colours)), np.full((count, 1), number)], 1))
    values = np.concatenate(parts).astype(np.float32)
    return Points(values[:, :3].copy(), values[:, 3:].copy())


def test_objects_are_sorted_by_number_and_negative_ones_are_none():
    processor = ObjectsProcessor(count=16)
    raw = processor(scene((7, 40, 5.0), (-1, 30, 0.0), (2, 10, -3.0)))
    assert raw["points"].shape == (2, 16, 6) and processor.shape(raw) == Shape(2)
    assert raw["places"][:, 0].round().tolist() == [-3.0, 5.0]


def test_a_place_is_the_mean_and_the_extent():
    xyz = np.array([[0, 0, 0], [2, 4, 1], [1, 2, 5]], np.float32)
    raw = ObjectsProcessor(count=3)(Points(xyz, np.zeros((3, 1), np.float32)))
    assert raw["places"].tolist() == [[1.0, 2.0, 2.0, 2.0, 4.0, 5.0]]


def test_an_object_is_at_the_origin_and_of_unit_size_wherever_it_stood():
    here, there = (ObjectsProcessor(count=64)(scene((0, 64, at))) for at in (0.0, 50.0))
    torch.testing.assert_close(here["points"], there["points"], atol=1e-5, rtol=1e-4)
    assert float(here["points"][0, :, :3].norm(dim=1).max()) == pytest.approx(1.0)


def test_few_points_are_repeated_and_of_many_every_so_maniest_is_taken():
    xyz = np.stack([np.arange(6), np.zeros(6), np.zeros(6)], 1).astype(np.float32)
    cloud = Points(xyz, np.stack([np.arange(6), np.zeros(6)], 1).astype(np.float32))
    assert ObjectsProcessor(count=3)(cloud)["points"][0, :, 3].tolist() == [0.0, 2.0, 4.0]
    assert ObjectsProcessor(count=8)(cloud)["points"][0, :, 3].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 1.0]


def test_draws_come_from_the_rng_alone():
    part, cloud = ObjectsProcessor(count=8, rotate="z"), scene((0, 60, 0.0), (1, 60, 3.0))
    one, two = (part(cloud, torch.Generator().manual_seed(1)) for _ in range(2))
    assert same_raw(one, two) and same_raw(part(cloud), part(cloud)) and not same_raw(one, part(cloud))


def test_a_scene_of_too_many_objects_is_refused_and_never_cut():
    with pytest.raises(MediaError, match=r"points_too_large.*3 objects; expected 2"):
        ObjectsProcessor(objects=2)(scene((0, 5, 0.0), (1, 5, 1.0), (2, 5, 2.0)))


def test_points_without_the_numbers_of_objects_are_refused():
    bare, halves = np.zeros((4, 0), np.float32), np.full((4, 1), 0.5, np.float32)
    for features in (bare, halves, np.full((4, 1), -1, np.float32)):
        with pytest.raises(MediaError, match="invalid_points"):
            ObjectsProcessor()(Points(np.zeros((4, 3), np.float32), features))


def test_the_last_columns_of_a_row_are_the_place():
    raw = ObjectsProcessor(count=16)(scene((0, 40, 1.0), (1, 9, 2.0)))
    part = ObjectPoints(**SMALL).eval()
    out = part([raw])
    assert part.out_dim == 18 and out.x.shape == (2, 18) and torch.equal(out.x[:, -6:], raw["places"])


def test_the_order_of_the_points_of_an_object_does_not_matter():
    raw = ObjectsProcessor(count=40)(scene((0, 40, 1.0)))
    shuffled = raw["points"][:, torch.randperm(40, generator=torch.Generator().manual_seed(0))]
    part = ObjectPoints(**SMALL).eval()
    moved = Bundle(places=raw["places"], points=shuffled)
    torch.testing.assert_close(part([raw]).x, part([moved]).x, atol=1e-5, rtol=1e-5)


def test_an_object_does_not_depend_on_the_others_of_its_scene():
    part, processor = ObjectPoints(**SMALL).eval(), ObjectsProcessor(count=16)
    both = part([processor(scene((0, 40, 1.0), (1, 30, 4.0)))]).x
    alone = part([processor(scene((0, 40, 1.0)))]).x
    torch.testing.assert_close(both[:1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("radius,is_seen", [(0.5, False), (9.0, True)])
def test_only_what_lies_within_the_radius_of_a_group_is_seen(radius, is_seen):
    # The one centre is the point farthest from the mean, (3, 0, 0), alone within 0.5.
    cloud = torch.tensor([[[0.0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [3, 0, 0]]])
    moved = cloud.clone()
    moved[0, 1, 1] = 0.3
    part = ObjectPoints(features=0, groups=[1], neighbours=[4], radii=[radius], widths=[[8], [8]]).eval()
    one, two = (part([Bundle(places=torch.zeros(1, 6), points=points)]).x for points in (cloud, moved))
    assert torch.allclose(one, two) is not is_seen


def test_rows_go_through_the_projector_of_objects():
    part, processor = ObjectPoints(**SMALL), ObjectsProcessor(count=16)
    rows = part([processor(scene((0, 40, 1.0), (1, 30, 4.0))), processor(scene((5, 9, 0.0)))])
    out = Objects(part.out_dim, 24, width=16, heads=2, hidden=32, layers=1)(rows, Context())
    assert out.lengths == [2, 1] and out.x.shape == (3, 24)


def test_they_keep_every_law_together():
    scenes = [scene((0, 40, 1.0), (1, 9, 4.0)), scene((3, 30, 0.0), seed=1), scene((0, 5, 0.0), (2, 50, 1.0), seed=2)]
    check_processor(ObjectsProcessor(count=16), scenes)
    check_encoder(ObjectPoints(**SMALL), ObjectsProcessor(count=16), scenes)


def test_lists_that_do_not_match_are_refused():
    for options in ({"groups": [4]}, {"radii": [0.5, 0.0]}, {"features": -1}, {"widths": [[8], [8]]}):
        with pytest.raises(ConfigError):
            ObjectPoints(**{**SMALL, **options})
    with pytest.raises(ConfigError):
        ObjectsProcessor(count=0)


def test_specs_read_back_build_equal_parts():
    for room, spec in (
        ("processors", {"type": "objects", "count": 8, "rotate": "z"}),
        ("encoders", {"type": "object_points", **SMALL}),
    ):
        read = spec_of(room, build(room, spec))
        assert spec.items() <= read.items() and spec_of(room, build(room, read)) == read
