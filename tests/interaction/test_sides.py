"""Rows beside the slots: in which document they are, and which slots see them."""

from __future__ import annotations

from dataclasses import replace

import torch

from omniloom.interaction.base import Moment, SlotFacts
from omniloom.interaction.routes import documents_of
from omniloom.interaction.sides import gather_sides, mix
from omniloom.sequence import Plan, Sample, Text, Turn
from tests.examples import asked, media
from tests.interaction.laws import beside, model_with


def moment_of(model, plan):
    given, _ = model.media(plan)
    return Moment(plan, model.embed(plan), given)


def facts_of(plan):
    return SlotFacts(plan.route, plan.document, torch.arange(plan.shape[1]).expand(plan.shape))


@torch.no_grad()
def test_rows_of_every_input_stand_in_the_row_of_their_item_and_are_seen_from_its_start(omni_folder):
    model = model_with(omni_folder, modalities=beside("image"))
    samples = [
        asked(media("image", 1), Text("a"), media("sound", 1), name="0"),
        asked(Text("bcd"), media("image", 2), name="1"),
    ]
    plan = Plan.stack([model.planner.plan(sample) for sample in samples])
    sides = gather_sides(moment_of(model, plan), ["image", "sound"])
    sound = next(item.rows for item in plan.items if item.modality == "sound")
    assert sides.rows.shape == (2, 6 + sound, 32)  # a picture of two by three patches, and a sound
    assert sides.route.tolist() == [[1] * 6 + [2] * sound, [1] * 4 + [0] * (2 + sound)]
    images = model.project("image", [item for item in plan.items if item.modality == "image"]).x
    torch.testing.assert_close(sides.rows[0, :6], images[:6])
    torch.testing.assert_close(sides.rows[1, :4], images[6:])
    assert not sides.rows[1, 4:].any()
    seen = sides.visible(facts_of(plan))
    starts = {item.modality: item.start for item in plan.items if item.row == 0}
    for slot in range(plan.shape[1]):
        real = slot < int(plan.lengths[0])
        assert seen[0, slot, :6].tolist() == [real and slot >= starts["image"]] * 6
        assert seen[0, slot, 6:].tolist() == [real and slot >= starts["sound"]] * sound
    assert not seen[1, :, 4:].any()
    assert not sides.visible(facts_of(plan), routes=[2])[..., :6].any()


def test_a_batch_without_items_has_no_rows(omni_folder):
    model = model_with(omni_folder)
    plan = model.planner.plan(asked(Text("a"), media("motion", 1)))
    assert gather_sides(moment_of(model, plan), ["image"]) is None


def test_an_item_that_ends_its_document_is_not_taken_for_the_next_ones(omni_folder):
    """Between two packed documents, the slot of its start is the other document's first."""
    model = model_with(omni_folder, modalities=beside("image"))
    plans = [model.planner.plan(Sample(name, (Turn("user", (Text("ab"), media("image", 1))),))) for name in "ab"]
    packed = Plan.pack(plans, 100)
    assert documents_of(packed, packed.items) == [0, 1]
    spans = [(packed.document[0] == number).nonzero()[:, 0] for number in (0, 1)]
    for place in (lambda span: int(span.max()) + 1, lambda span: int(span.min())):
        moved = [replace(item, start=place(span)) for item, span in zip(packed.items, spans, strict=True)]
        assert documents_of(packed, moved) == [0, 1]


def test_a_mixture_of_nothing_is_nothing_and_gives_no_gradient_that_is_not_a_number():
    query = torch.randn(1, 2, 3, 4, requires_grad=True)
    key, value = torch.randn(1, 1, 2, 4), torch.randn(1, 1, 2, 4)
    visible = torch.tensor([[[False, False], [True, False], [True, True]]])
    mixed = mix(query, key, value, visible)
    assert torch.equal(mixed[:, :, 0], torch.zeros(1, 2, 4))
    torch.testing.assert_close(mixed[0, 0, 1], value[0, 0, 0])
    expected = (query[0, 1, 2] @ key[0, 0].T).softmax(-1) @ value[0, 0]
    torch.testing.assert_close(mixed[0, 1, 2], expected)
    mixed.sum().backward()
    assert bool(query.grad.isfinite().all()) and not query.grad[:, :, 0].any()
