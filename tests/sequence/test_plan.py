"""A Plan as data: joined, packed, appended; held to its own rules."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omniloom.errors import PlanError
from omniloom.sequence import IGNORE, Kind, Plan, Text
from tests.examples import BATCHES, SAMPLES, answered, asked, drawing, media, plans_of

SAMPLE = answered((Text("see"), media("image", 1), media("sound", 2), Text("?")), Text("yes"), drawing(1))


@pytest.fixture
def plan(stock):
    """A plan of one row with two inputs, one output and labels."""
    return stock.planner.plan(SAMPLE)


@pytest.fixture
def batch(stock):
    """Four documents in rows of different lengths, two of them packed."""
    first, second, third = plans_of(stock, [SAMPLE, asked(Text("short")), asked(media("points"), Text("longer"))])
    return Plan.join([[first], [second, third]])


def test_a_plan_that_the_planner_makes_keeps_its_own_rules(stock):
    @given(BATCHES, st.integers(0, 100))
    def law(samples, spare):
        plans = plans_of(stock, samples)
        assert Plan.stack(plans).check()
        assert Plan.pack(plans, max(plan.shape[1] for plan in plans) + spare).check()

    law()


def test_a_row_is_its_documents_one_after_another(batch, stock):
    assert batch.is_packed and batch.samples == ("0", "1", "2")
    alone = plans_of(stock, [SAMPLE, asked(Text("short")), asked(media("points"), Text("longer"))])
    for index, plan in enumerate(alone):
        here = batch.document == index
        assert torch.equal(batch.ids[here], plan.ids[0]) and torch.equal(batch.position[0][here], plan.position[0, 0])
        assert torch.equal(batch.label[here], plan.label[0]) and torch.equal(batch.route[here], plan.route[0])
    assert batch.lengths.tolist() == [alone[0].shape[1], alone[1].shape[1] + alone[2].shape[1]]


def test_source_rows_count_over_the_batch_for_each_modality(stock):
    plans = plans_of(stock, [asked(media("image"), media("sound", 1)), asked(media("image"), media("image", 1))])
    batch = Plan.stack(plans)
    for modality in ("image", "sound"):
        here = (batch.modality == batch.modalities.index(modality)) & (batch.kind == int(Kind.MEDIA))
        assert batch.source[here].tolist() == list(range(int(here.sum())))
        assert sum(item.length for item in batch.items_of(modality)) == int(here.sum())


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(30, 60))
def test_packing_holds_every_document_once_in_no_more_rows_than_needed(lengths, room):
    plans = [_blank(f"{index}", length) for index, length in enumerate(lengths)]
    packed = Plan.pack(plans, room)
    assert sorted(packed.samples, key=int) == [plan.samples[0] for plan in plans]
    assert packed.shape[1] <= room and int(packed.lengths.sum()) == sum(lengths)
    # First fit: no two neighbouring rows could have been one, so fewer than twice the least number of rows.
    assert packed.shape[0] <= max(1, 2 * sum(lengths) // room + 1)
    packed.check()


def _blank(name: str, length: int) -> Plan:
    zeros = torch.zeros(1, length, dtype=torch.long)
    none = torch.full((1, length), -1)
    return Plan(
        ids=zeros, kind=zeros + 1, modality=none, item=none, source=none, document=zeros, segment=zeros, stream=zeros,
        span=none, position=torch.arange(length)[None, None],
        time_s=torch.full((1, length), float("nan"), dtype=torch.float64),
        label=torch.full((1, length), IGNORE), weight=torch.zeros(1, length), route=zeros,
        items=(), modalities=(), samples=(name,),
    )  # fmt: skip


def test_a_document_longer_than_a_row_is_refused(stock):
    with pytest.raises(PlanError, match=r"'0' fills .* slots, a packed row holds 5"):
        Plan.pack(plans_of(stock, [SAMPLE]), 5)


def test_nothing_is_no_batch_and_batches_are_not_joined_again(batch):
    with pytest.raises(PlanError, match="at least one plan"):
        Plan.stack([])
    with pytest.raises(PlanError, match="one row each"):
        Plan.stack([batch])


def test_plans_of_different_models_are_not_joined(plan):
    other = replace(plan, modalities=("touch",))
    with pytest.raises(PlanError, match="different models"):
        Plan.stack([plan, other])
    with pytest.raises(PlanError, match="different models"):
        plan.append(other)


def test_only_single_documents_without_padding_are_appended(plan, batch, stock):
    packed = Plan.join([[plan, plan]])
    for wrong in (batch, packed):
        with pytest.raises(PlanError, match="one row and one document"):
            plan.append(wrong)
        with pytest.raises(PlanError, match="one row and one document"):
            wrong.append(plan)


def test_turns_of_items_go_on_counting_behind_turns_without_items(stock):
    first = stock.planner.plan(answered((media("image"),), Text("a")))
    second = stock.planner.plan(asked(media("image")), opening=False)
    assert [item.turn for item in first.append(second).items] == [0, 2]


def test_equal_plans_are_equal_and_any_other_value_is_not(plan, stock):
    assert plan.equals(stock.planner.plan(SAMPLE))
    assert not plan.equals(stock.planner.plan(asked(Text("x"))))
    other_raw = replace(plan.items[0], raw=plan.items[0].raw + 1)
    assert not plan.equals(replace(plan, items=(other_raw, *plan.items[1:])))
    for name, value in plan.tensors().items():
        if name != "time_s":
            assert not plan.equals(replace(plan, **{name: value + 1})), name


def test_a_plan_moves_to_a_device_with_all_its_tensors(plan):
    assert all(value.is_meta for value in plan.to("meta").tensors().values())


def changed(plan: Plan, field: str, slot: int, value: float, row: int = 0) -> Plan:
    tensor = getattr(plan, field).clone()
    tensor[..., row, slot] = value
    return replace(plan, **{field: tensor})


def test_a_label_anywhere_but_before_its_token_is_refused(stock):
    @given(SAMPLES, st.data())
    def law(sample, data):
        plan = stock.planner.plan(sample)
        labelled = (plan.label[0] != IGNORE).nonzero()[:, 0].tolist()
        slot = data.draw(st.sampled_from(labelled))
        other = data.draw(st.integers(0, plan.shape[1] - 1))
        follows = int(plan.ids[0, other + 1]) if other + 1 < plan.shape[1] else None
        moved = changed(plan, "label", other, int(plan.label[0, slot]))
        if follows == int(plan.label[0, slot]) and int(plan.kind[0, other + 1]) != int(Kind.MEDIA):
            return
        with pytest.raises(PlanError, match="label"):
            moved.check()

    law()


def test_a_wrong_value_in_any_field_that_others_fix_is_refused(stock):
    """One slot of one field at a time; ids of slots that nobody learns and weights of labels are free."""

    @given(BATCHES, st.data())
    def law(samples, data):
        plans = plans_of(stock, samples)
        batch = (
            Plan.pack(plans, 150)
            if data.draw(st.booleans()) and max(p.shape[1] for p in plans) < 150
            else Plan.stack(plans)
        )
        row = data.draw(st.integers(0, batch.shape[0] - 1))
        slot = data.draw(st.integers(0, int(batch.lengths[row]) - 1))
        field = data.draw(st.sampled_from(["position", "document", "item", "source", "route", "kind"]))
        before = int(getattr(batch, field)[..., row, slot])
        values = {"kind": [0, 3], "document": [-1, 0, 1, 2, 9], "item": [-1, 0, 1, 9]}.get(field, [-1, 0, 1, 2, 3, 40])
        value = data.draw(st.sampled_from([value for value in values if value != before]))
        if field == "kind" and value == 0 and slot == int(batch.lengths[row]) - 1 and before == 0:
            return
        with pytest.raises(PlanError):
            changed(batch, field, slot, value, row).check()

    law()


@pytest.mark.parametrize(
    "change",
    [
        {"length": 3},
        {"length": 7},
        {"rows": 5},
        {"start": 0},
        {"start": -1},
        {"start": 1000},
        {"row": 1},
        {"modality": "sound"},
        {"modality": "nothing"},
        {"keep": (0, 1, 2, 3, 4, 99)},
        {"keep": (0, 1)},
    ],
    ids=str,
)
def test_an_item_that_does_not_fit_its_slots_is_refused(plan, change):
    assert plan.items[0].modality == "image" and plan.items[0].length == 6
    with pytest.raises(PlanError, match=r"item 0|slots await|source rows"):
        replace(plan, items=(replace(plan.items[0], **change), *plan.items[1:])).check()


def test_an_output_item_that_does_not_fit_its_slots_is_refused(plan):
    with pytest.raises(PlanError, match="item 2"):
        replace(plan, items=(*plan.items[:2], replace(plan.items[2], length=5))).check()


def test_items_in_another_order_are_refused(stock):
    plan = stock.planner.plan(asked(media("image", 0), Text("x"), media("image", 1)))
    with pytest.raises(PlanError):
        replace(plan, items=plan.items[::-1]).check()


def test_slots_that_no_item_fills_are_refused(plan):
    with pytest.raises(PlanError, match="slots await rows that no item gives"):
        replace(
            plan, items=plan.items[:1] + plan.items[2:], item=torch.where(plan.item == 1, -1, plan.item.clamp(max=1))
        ).check()


def test_padding_in_the_middle_of_a_row_is_refused(batch):
    with pytest.raises(PlanError, match="padding stands before the end"):
        changed(batch, "kind", 2, int(Kind.PAD), row=1).check()


def test_a_label_on_padding_or_on_the_last_slot_is_refused(batch):
    row = int(batch.lengths.argmin())
    for slot in (int(batch.lengths[row]) - 1, batch.shape[1] - 1):
        with pytest.raises(PlanError, match="label"):
            changed(batch, "label", slot, 5, row=row).check()


def test_a_weight_without_a_label_is_refused(plan):
    slot = int((plan.label[0] == IGNORE).nonzero()[0])
    with pytest.raises(PlanError, match="weight"):
        changed(plan, "weight", slot, 1.0).check()


def test_the_table_tells_every_run_of_slots(plan, stock):
    table = plan.explain(stock.planner.decode)
    lines = table.splitlines()
    assert any("MEDIA" in line and "image" in line and "0..5" in line for line in lines)
    assert any("CODE" in line and "drawing" in line for line in lines)
    assert any("'see'" in line for line in lines) and any("'yes'" in line for line in lines)
    assert lines[-1] == f"1 x {plan.shape[1]} slots, 0 padding, {plan.supervised} labels, 3 items, 0 segments truncated"


def test_the_table_of_a_batch_tells_padding_and_ids_without_a_decoder(batch):
    table = batch.explain()
    assert table.count("PAD") == 1 and f"{int(batch.is_padding.sum())} padding" in table
    assert "[1, " in table
