"""The laws of one Plan, held on logits: how samples are put together changes nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omniloom.sequence import IGNORE, Plan, Sample, Text, Turn
from tests.examples import (
    BATCHES,
    SAMPLES,
    answered,
    asked,
    conversations,
    drawing,
    largest,
    logits_of,
    media,
    plans_of,
)

EVERYTHING = [
    asked(Text("only text")),
    answered((media("image"), Text("what?")), Text("a cat")),
    answered((Text("first"), media("sound", 2), Text("then"), media("image", 1), media("points", 3)), Text("both")),
    answered((Text("draw"),), Text("here:"), drawing(1), Text("done")),
    answered((media("motion", 3), media("motion", 0)), drawing(2), drawing(3)),
    Sample("s", (*answered((media("points"),), Text("x")).turns, *answered((media("image"),), drawing()).turns)),
]


def test_a_padded_batch_gives_the_logits_of_one_by_one(bounded):
    model, limit = bounded

    @given(BATCHES)
    def law(samples):
        plans = plans_of(model, samples)
        alone = [logits_of(model, plan)[0] for plan in plans]
        assert largest(logits_of(model, Plan.stack(plans)), alone) <= limit

    law()


def test_packed_rows_give_the_logits_of_padded_ones(bounded):
    model, limit = bounded

    @given(BATCHES, st.integers(0, 200))
    def law(samples, spare):
        plans = plans_of(model, samples)
        packed = Plan.pack(plans, max(plan.shape[1] for plan in plans) + spare)
        assert largest(logits_of(model, packed), logits_of(model, Plan.stack(plans))) <= limit

    law()


def test_every_kind_of_sample_is_the_same_alone_padded_and_packed(bounded):
    model, limit = bounded
    plans = plans_of(model, EVERYTHING)
    packed = Plan.pack(plans, 400)
    assert packed.is_packed and packed.shape[0] < len(plans)
    alone = [logits_of(model, plan)[0] for plan in plans]
    assert largest(logits_of(model, Plan.stack(plans)), alone) <= limit
    assert largest(logits_of(model, packed), alone) <= limit


def test_a_batch_in_another_order_gives_the_same_logits(bounded):
    model, limit = bounded
    plans = plans_of(model, EVERYTHING)
    assert largest(logits_of(model, Plan.stack(plans[::-1])), logits_of(model, Plan.stack(plans))) <= limit


def test_turns_appended_to_a_plan_are_the_plan_of_all_turns(bounded):
    model, limit = bounded

    @given(conversations(), conversations(rounds=1))
    def law(first, then):
        then = tuple(turn for turn in then if turn.role != "system")
        whole = model.planner.plan(Sample("s", first + then))
        joined = model.planner.plan(Sample("s", first)).append(model.planner.plan(Sample("s", then), opening=False))
        assert joined.equals(whole) and joined.check() is joined
        assert largest(logits_of(model, joined), logits_of(model, whole)) <= limit

    law()


def test_a_conversation_cut_at_any_turn_is_the_whole_one(clean):
    @given(SAMPLES, st.data())
    def law(sample, data):
        # An answer stays with its question: the label of its first token may stand in the question's last slot.
        borders = [n for n in range(1, len(sample.turns)) if sample.turns[n].role == "user"]
        if not borders:
            return
        cut = data.draw(st.sampled_from(borders))
        first, then = sample.turns[:cut], sample.turns[cut:]
        joined = clean.planner.plan(Sample("s", first)).append(clean.planner.plan(Sample("s", then), opening=False))
        assert joined.equals(clean.planner.plan(sample))

    law()


def sums_of(model, plan):
    return torch.stack([value for pair in model.loss(plan).values() for value in pair])


def test_losses_are_the_same_alone_padded_and_packed(bounded):
    model, limit = bounded

    @given(BATCHES)
    def law(samples):
        plans = plans_of(model, samples)
        with torch.no_grad():
            alone = torch.stack([sums_of(model, plan) for plan in plans]).sum(0)
            padded, packed = (sums_of(model, plan) for plan in (Plan.stack(plans), Plan.pack(plans, 600)))
        # Sums of many slots: the bound is that of one slot's loss times how many there are.
        scale = limit * max(1.0, float(alone.max()))
        assert float((padded - alone).abs().max()) <= scale and float((packed - alone).abs().max()) <= scale

    law()


def test_counts_are_weights_and_weights_multiply_the_loss(clean):
    plain = clean.planner.plan(answered((Text("q"),), Text("abc"), drawing()))
    heavy = clean.planner.plan(answered((Text("q"),), Text("abc", weight=3.0), drawing()))
    with torch.no_grad():
        before, after = clean.loss(plain), clean.loss(heavy)
    assert float(before["text"][1]) == 3 + 1 and float(after["text"][1]) == 3 * 3 + 1
    assert float(before["codes"][1]) == 4 + 2 and torch.equal(before["codes"][0], after["codes"][0])
    losses = clean.losses(plain).loss  # a, b, c, six slots of the drawing, the end of the turn
    expected = 3 * losses[:3].sum() + losses[-1]
    torch.testing.assert_close(after["text"][0], expected.detach(), atol=1e-9, rtol=0)


def test_gradients_of_every_part_are_the_same_padded_and_packed(clean):
    plans = plans_of(clean, EVERYTHING)
    assert len({plan.items and plan.items[0].modality for plan in plans}) > 3
    trained = clean.train_only(["*/projector*", "*/encoder", "vocab", "lora"])
    try:
        grads = []
        for plan in (Plan.stack(plans), Plan.pack(plans, 400)):
            clean.zero_grad(set_to_none=True)
            sum(value / count for value, count in clean.loss(plan).values()).backward()
            grads.append({name: value.grad.clone() for name, value in trained.items() if value.grad is not None})
    finally:
        clean.zero_grad(set_to_none=True)
        clean.requires_grad_(False).eval()
    components = {name.partition(".")[0] for name in grads[0]}
    assert {
        "image/projector",
        "sound/projector2",
        "points/projector",
        "motion/projector",
        "vocab",
        "lora",
    } <= components
    assert grads[0].keys() == grads[1].keys() and all(bool(grad.any()) for grad in grads[0].values())
    worst = max(float((grads[0][name] - grads[1][name]).abs().max()) for name in grads[0])
    assert worst <= 1e-9


def test_padding_in_front_of_nothing_learns_nothing(stock):
    plan = Plan.stack(plans_of(stock, EVERYTHING))
    assert bool(plan.is_padding.any())
    assert bool((plan.label[plan.is_padding] == IGNORE).all()) and float(plan.weight[plan.is_padding].sum()) == 0


def test_a_batch_without_media_needs_none(bounded):
    model, _ = bounded
    plan = Plan.stack(plans_of(model, [asked(Text("a")), asked(Text("bc"))]))
    assert not plan.items and bool(model.hidden(plan).isfinite().all())


@settings(max_examples=10)
@given(turns=conversations(rounds=1))
def test_a_medium_changes_the_slots_after_it_and_none_before(clean, turns):
    question = Turn("user", (Text("before"), media("image", 1), Text("after")))
    plan = clean.planner.plan(Sample("s", (*turns, question)))
    other = clean.planner.plan(Sample("s", (*turns, Turn("user", (Text("before"), media("image", 3), Text("after"))))))
    start = plan.items[-1].start
    ours, theirs = logits_of(clean, plan)[0], logits_of(clean, other)[0]
    assert float((ours - theirs)[:start].abs().max()) <= 1e-9
    assert float((ours - theirs)[start:].abs().amax(1).min()) > 1e-9


@pytest.mark.parametrize("modality", ["image", "sound", "motion", "points"])
def test_rows_stand_in_their_own_slots_in_their_own_order(clean, modality):
    items = [media(modality, 1), media(modality, 2)]
    plan = Plan.stack(plans_of(clean, [asked(Text("a"), items[0]), asked(items[1], Text("long enough to pad"))]))
    with torch.no_grad():
        embeds = clean.embed(plan)
        for planned, item in zip(plan.items, items, strict=True):
            alone = clean.planner.plan(asked(item)).items
            rows = clean.project(modality, alone).x
            span = slice(planned.start, planned.start + planned.length)
            torch.testing.assert_close(embeds[planned.row, span], rows, atol=1e-9, rtol=0)
