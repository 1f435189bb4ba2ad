"""Some slots of a plan: taken out of it, and put back."""

from __future__ import annotations

import torch

from omniloom.backbone.places import Places
from tests.planner.test_two_streams import planner, talk


def test_what_is_taken_and_put_back_is_where_it_was():
    from omniloom.sequence import Plan

    plan = Plan.pack([planner().plan(talk(*words)) for words in (("abc", "de"), ("f", "ghij"), ("k", "l"))], 80)
    values = torch.arange(plan.ids.numel()).reshape(plan.shape)
    back = torch.full_like(values, -1)
    for number in (0, 1):
        chosen = (plan.stream == number) & ~plan.is_padding
        stream = Places.of(chosen, plan.document)
        taken = stream.take(values)
        assert torch.equal(taken[stream.document >= 0], values[chosen])
        assert stream.counts == chosen.sum(1).tolist()
        back = stream.put(taken, back)
    assert torch.equal(back, torch.where(plan.is_padding, -1, values))


def test_a_row_without_slots_may_read_its_first_place():
    from omniloom.sequence import Plan

    unanswered = planner().plan(talk("abc"))
    plan = Plan.stack([unanswered, planner().plan(talk("a", "bc"))])
    stream = Places.of((plan.stream == 0) & ~plan.is_padding, plan.document)
    assert stream.counts == [0, 4] and stream.mask.tolist() == [[True, False, False, False], [True] * 4]
