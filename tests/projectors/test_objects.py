from __future__ import annotations

import math

import pytest
import torch

from omniloom.errors import ConfigError
from omniloom.projectors import Context
from omniloom.projectors.objects import Objects, _relations
from omniloom.sequence import Packed


def scene(count=5, seed=0):
    return torch.randn(count, 10, generator=torch.Generator().manual_seed(seed))


def moved(rows, by):
    rows = rows.clone()
    rows[:, -6:-3] += torch.tensor(by)
    return rows


def test_relations_are_distance_and_the_angles_to_the_vertical_and_on_the_ground():
    centres = torch.tensor([[[0.0, 0.0, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 10.0]]])
    found = _relations(centres, torch.ones(1, 3, dtype=torch.bool))[0]
    longest = math.sqrt(125)  # from the second to the third
    # From the first to the second: on the ground, so no vertical sine; the offset is -(3, 4).
    torch.testing.assert_close(found[0, 1], torch.tensor([5 / longest, 0.0, 1.0, -0.8, -0.6]), atol=1e-4, rtol=0)
    # From the third down to the first: straight, so the horizontal angle says nothing.
    torch.testing.assert_close(found[2, 0], torch.tensor([10 / longest, 1.0, 0.0, 0.0, 0.0]), atol=1e-4, rtol=0)


def test_rows_of_padding_do_not_stretch_the_largest_distance():
    centres = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [900.0, 0.0, 0.0]]])
    found = _relations(centres, torch.tensor([[True, True, False]]))[0]
    assert found[0, 1, 0].item() == pytest.approx(1.0)


def test_the_attention_of_one_layer_is_weighted_by_the_conditioned_sigmoid():
    torch.manual_seed(0)
    part, rows = Objects(10, 4, layers=1, width=8, heads=2, hidden=16), scene()
    layer = part.blocks[0]
    x = part.first(rows[:, :4]) + part.place(rows[:, 4:])
    relations = _relations(rows[None, :, 4:7], torch.ones(1, 5, dtype=torch.bool))[0]
    heads = []
    for head in range(2):
        part_of = slice(4 * head, 4 * head + 4)
        scores = layer.query(x)[:, part_of] @ layer.key(x)[:, part_of].T / 2.0
        minds = layer.minds(x)[:, 6 * head : 6 * head + 6]
        near = torch.sigmoid((minds[:, None, 1:] * relations).sum(-1) + minds[:, :1])
        weights = near * scores.exp()
        heads.append(weights / weights.sum(1, keepdim=True) @ layer.value(x)[:, part_of])
    attended = layer.inner_norm(x + layer.out(torch.cat(heads, 1)))
    x = layer.attention_norm(x + attended)
    expected = part.map(layer.norm(x + layer.mlp(x)))
    torch.testing.assert_close(part(Packed.of([rows]), Context()).x, expected, atol=1e-5, rtol=1e-5)


def test_objects_in_another_order_are_the_same_objects():
    torch.manual_seed(0)
    part, rows = Objects(10, 4, layers=2, width=8, heads=2, hidden=16), scene()
    straight = part(Packed.of([rows]), Context()).x
    torch.testing.assert_close(part(Packed.of([rows.flip(0)]), Context()).x.flip(0), straight)


def test_where_an_object_lies_matters():
    torch.manual_seed(0)
    part, rows = Objects(10, 4, layers=1, width=8, heads=2, hidden=16), scene()
    assert not torch.allclose(
        part(Packed.of([moved(rows, [1.0, 0.0, 0.0])]), Context()).x, part(Packed.of([rows]), Context()).x
    )


def test_rows_without_features_are_refused():
    with pytest.raises(ConfigError, match="6 columns of place"):
        Objects(6, 4)
