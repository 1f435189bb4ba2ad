from __future__ import annotations

import pytest
import torch

from omniloom.errors import ConfigError
from omniloom.projectors import Context
from omniloom.projectors.soft_moe import SoftMoE
from omniloom.sequence import Packed


def small(**options):
    torch.manual_seed(0)
    part = SoftMoE(4, 6, **{"queries": 3, "width": 8, "heads": 2, "depth": 1, **options})
    part.serve("a")
    part.serve("b")
    return part


def test_weights_of_a_query_add_up_to_one_and_are_sigmoids_over_their_sum():
    branch = small().own["a"]
    opened = torch.sigmoid(branch.router(branch.query))
    torch.testing.assert_close(branch.weights(), opened / opened.sum(1, keepdim=True))
    torch.testing.assert_close(branch.weights().sum(1), torch.ones(3))


def test_rows_are_the_weighted_sum_of_what_each_expert_makes_of_queries_and_rows():
    part, rows = small(), torch.randn(5, 4)
    branch, total = part.own["a"], 0.0
    x = torch.cat([branch.query, branch.in_norm(branch.in_map(rows))])[None]
    for index, expert in enumerate(part.expert):
        made = expert[0](x, torch.ones(1, 8, dtype=torch.bool))[0, :3]
        total = total + branch.weights()[:, index, None] * made
    expected = branch.out_norm(branch.out_map(total))
    torch.testing.assert_close(part(Packed.of([rows]), Context(modality="a")).x, expected)


def test_experts_that_are_copies_make_what_one_of_them_makes():
    part, rows = small(), Packed.of([torch.randn(5, 4)])
    for expert in part.expert[1:]:
        expert.load_state_dict(part.expert[0].state_dict())
    before = part(rows, Context(modality="a")).x
    part.own["a"].router[-1].bias.data = torch.tensor([9.0, -9.0, 0.0])
    torch.testing.assert_close(part(rows, Context(modality="a")).x, before)


def test_each_modality_has_queries_maps_and_a_router_of_its_own_and_shares_the_experts():
    part, rows = small(), Packed.of([torch.randn(5, 4)])
    before = part(rows, Context(modality="a")).x
    for parameter in part.own["b"].parameters():
        parameter.data += 1.0
    assert torch.equal(part(rows, Context(modality="a")).x, before)
    part.expert[0][0].mlp.down.weight.data += 1.0
    assert not torch.allclose(part(rows, Context(modality="a")).x, before)
    assert {name.split(".")[0] for name, _ in part.own["a"].named_parameters()} == {
        "query",
        "in_map",
        "in_norm",
        "router",
        "out_map",
        "out_norm",
    }


def test_a_modality_that_was_not_served_is_refused():
    with pytest.raises(ConfigError, match=r"'c'.*Known: a, b"):
        small()(Packed.of([torch.randn(5, 4)]), Context(modality="c"))


def test_queries_give_different_rows_from_the_first_step():
    part = small(queries=8, width=16)
    assert torch.pdist(part(Packed.of([torch.randn(9, 4)]), Context(modality="a")).x).min() > 0.01
