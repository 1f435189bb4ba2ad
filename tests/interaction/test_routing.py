"""Choices and weights of experts, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from omniloom.interaction.routing import Routing, balance, route_slots

LOGITS = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.12, 0.08, 0.7, 0.1]]).log()


def test_the_likeliest_k_are_taken_and_share_the_weight():
    routing = route_slots(LOGITS, 0, 2, None)
    assert routing.chosen.int().tolist() == [[1, 1, 0, 0], [1, 0, 1, 0]]
    torch.testing.assert_close(routing.weights, torch.tensor([[5 / 8, 3 / 8, 0, 0], [12 / 82, 0, 70 / 82, 0]]))
    torch.testing.assert_close(routing.probabilities, LOGITS.exp())


@pytest.mark.parametrize(("p", "counts"), [(0.4, [1, 1]), (0.65, [2, 1]), (0.79, [2, 2]), (0.9, [3, 3]), (1.0, [4, 4])])
def test_as_few_as_reach_p_together_are_taken(p, counts):
    routing = route_slots(LOGITS, 0, 1, p)
    assert routing.chosen.sum(1).tolist() == counts
    torch.testing.assert_close(routing.weights.sum(1), torch.ones(2))


def test_shared_experts_are_taken_by_all_and_weighted_by_the_same_router():
    """The last of four logits is a shared expert's: it stands in the softmax beside what was chosen."""
    routing = route_slots(LOGITS, 1, 1, None)
    assert routing.chosen.shape == (2, 3)
    torch.testing.assert_close(routing.weights, torch.tensor([[10 / 11, 0, 0, 1 / 11], [0, 0, 7 / 8, 1 / 8]]))
    torch.testing.assert_close(routing.probabilities[0], torch.tensor([0.5, 0.3, 0.15]) / 0.95)


def test_experts_that_are_not_allowed_are_never_taken_fewer_then_are():
    allowed = torch.tensor([[False, False, True, False], [True, True, False, False]])
    routing = route_slots(LOGITS, 0, 2, None, allowed)
    assert routing.chosen.int().tolist() == [[0, 0, 1, 0], [1, 1, 0, 0]]
    torch.testing.assert_close(routing.weights[0], torch.tensor([0.0, 0.0, 1.0, 0.0]))
    assert route_slots(LOGITS, 0, 1, 0.9, allowed).chosen.int().tolist() == [[0, 0, 1, 0], [1, 1, 0, 0]]


def test_the_balance_is_experts_times_the_sum_of_shares_times_mean_probabilities_of_real_slots():
    chosen = torch.tensor([[1, 1, 0], [1, 0, 1], [0, 1, 1]]).bool()
    probabilities = torch.tensor([[0.5, 0.4, 0.1], [0.6, 0.1, 0.3], [0.0, 0.5, 0.5]])
    real = torch.tensor([True, True, False])
    value = balance(Routing(chosen, probabilities, probabilities), real)
    assert math.isclose(float(value), 3 * (2 / 4 * 0.55 + 1 / 4 * 0.25 + 1 / 4 * 0.2), rel_tol=1e-6)
    even = torch.full((4, 4), 0.25)
    assert float(balance(Routing(torch.eye(4).bool(), even, even), torch.ones(4).bool())) == 1
