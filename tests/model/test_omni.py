"""The composed model: what trains, what is refused, what one part does to the others."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from omniloom.errors import FreezeError, PlanError, ShapeError
from omniloom.model import compose
from omniloom.projectors import Projector
from omniloom.sequence import Item, Kind, Packed, Plan, Sample, Shape, Text
from tests.examples import answered, asked, config_of, drawing, example_values, logits_of, media, plans_of

SAMPLE = answered((Text("q"), media("image", 1), media("sound", 1)), Text("yes"), drawing(3))


def test_training_only_some_trains_exactly_those(private):
    chosen = private.train_only(["image/*", "vocab.head", "lora"])
    trains = {name for _, name, value in private.named_component_parameters() if value.requires_grad}
    expected = {
        name
        for component, name, _ in private.named_component_parameters()
        if component.startswith("image/") or component == "lora" or name == "vocab.head"
    }
    assert set(chosen) == trains == expected
    assert {name.partition(".")[0] for name in trains} == {"image/encoder", "image/projector", "vocab", "lora"}
    modes = {name: part.training for name, part in private.parts.items()}
    assert modes == {name: name in {"image/encoder", "image/projector", "vocab"} for name in modes}
    assert not private.backbone.training


def test_another_selection_freezes_the_one_before(private):
    private.train_only(["*"])
    assert all(value.requires_grad for value in private.parameters())
    assert set(private.train_only(["points/projector"])) == {
        name for _, name, value in private.named_component_parameters() if value.requires_grad
    }
    assert not private.parts["image/encoder"].training


@pytest.mark.parametrize("glob", ["imagge/encoder", "image/encoder.nothing", "", "motion/codec"])
def test_a_selector_that_matches_nothing_is_refused(stock, glob):
    with pytest.raises(FreezeError, match="matches no parameter"):
        stock.select(["sound/*", glob])


def test_a_misspelt_selector_is_told_the_nearest_component(stock):
    with pytest.raises(FreezeError, match="Did you mean 'image/encoder'"):
        stock.select(["imagge/encoder"])


def test_every_parameter_belongs_to_one_component(stock):
    named = [value for _, _, value in stock.named_component_parameters()]
    assert len({id(value) for value in named}) == len(named) == len(list(stock.parameters()))
    assert {id(value) for value in named} == {id(value) for value in stock.parameters()}


def test_frozen_parts_get_no_gradient_and_their_graph_is_not_kept(private):
    private.train_only(["image/projector"])
    sum(value for value, _ in private.loss(private.planner.plan(SAMPLE)).values()).backward()
    got = {component for component, _, value in private.named_component_parameters() if value.grad is not None}
    assert got == {"image/projector"}
    private.train_only(["backbone"])
    media, _ = private.media(private.planner.plan(SAMPLE))
    assert not media["image"].encoded.x.requires_grad


class Liar(Projector):
    """Gives one row fewer than it declares, in both what it returns and its shapes."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.in_dim, self.out_dim = in_dim, out_dim
        self.map = nn.Linear(in_dim, out_dim)

    def forward(self, packed, context):
        rows = [self.map(row[1:]) for row in packed.items()]
        return Packed.of(rows)

    def out_shape(self, shape: Shape) -> Shape:
        return shape


def test_a_projector_that_gives_other_rows_than_it_declares_is_refused_before_the_language_model(private):
    plan = private.planner.plan(asked(media("motion", 3)))
    private.parts["motion/projector"] = Liar(32, 32)
    passes = []
    private.backbone.lm.register_forward_hook(lambda *_: passes.append(1))
    private.backbone.lm.model.register_forward_hook(lambda *_: passes.append(1))
    with pytest.raises(ShapeError, match=r"projector of 'motion' gave \(3, 32\).*expects 4 rows"):
        private.hidden(plan)
    assert not passes


def test_an_encoder_that_gives_other_rows_than_it_declares_is_refused(private):
    plan = private.planner.plan(asked(media("motion", 3)))
    private.rows["motion"].input.encoder.forward = lambda raws: Packed.of([torch.zeros(9, 32) for _ in raws])
    with pytest.raises(ShapeError, match=r"encoder of 'motion' gave 9 rows.*says 4"):
        private.hidden(plan)


def test_cached_rows_stand_in_for_their_raw_tensor(stock):
    found, _ = stock.media(stock.planner.plan(asked(media("sound", 2))))
    rows = found["sound"].encoded
    cached = Item("sound", Packed(rows.x, rows.shapes))
    mixed = asked(cached, Text("and"), media("sound", 1))
    plain = asked(media("sound", 2), Text("and"), media("sound", 1))
    ours, theirs = logits_of(stock, stock.planner.plan(mixed)), logits_of(stock, stock.planner.plan(plain))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_an_item_without_raw_or_rows_is_refused(stock):
    from dataclasses import replace

    plan = stock.planner.plan(asked(media("image")))
    empty = replace(plan, items=(replace(plan.items[0], raw=None),))
    with pytest.raises(PlanError, match="neither a raw tensor nor cached rows"):
        stock.hidden(empty)


def test_only_supervised_slots_reach_the_head(stock):
    seen = []
    handle = stock.backbone.lm.get_output_embeddings().register_forward_hook(
        lambda *args: seen.append(args[1][0].shape)
    )
    plan = Plan.stack(plans_of(stock, [SAMPLE, asked(Text("nothing to learn")), SAMPLE]))
    stock.loss(plan)
    handle.remove()
    assert seen == [(plan.supervised, stock.backbone.width)]


def test_the_loss_of_a_slot_is_the_cross_entropy_of_what_follows(clean):
    plan = clean.planner.plan(SAMPLE)
    losses = clean.losses(plan)
    log_p = logits_of(clean, plan)[0].log_softmax(-1)
    slots = (plan.label[0] >= 0).nonzero()[:, 0]
    expected = torch.stack([-log_p[slot, plan.ids[0, slot + 1]] for slot in slots])
    torch.testing.assert_close(losses.loss.detach(), expected, atol=1e-9, rtol=0)
    assert losses.is_code.tolist() == [bool(plan.ids[0, slot + 1] >= clean.vocabulary.base_size) for slot in slots]


def test_media_slots_take_rows_and_text_slots_take_embeddings(stock):
    plan = stock.planner.plan(SAMPLE)
    with torch.no_grad():
        embeds = stock.embed(plan)[0]
        text = plan.kind[0] == int(Kind.TEXT)
        assert torch.equal(embeds[text], stock.backbone.embed(plan.ids[0, text]))
        code = plan.ids[0] >= stock.vocabulary.base_size
        assert int(code.sum()) == 6 and torch.equal(embeds[code], stock.vocab.embed(plan.ids[0, code]))


def test_adding_a_modality_that_is_not_used_leaves_every_logit_as_it_was(omni_folder):
    values = example_values()["modalities"]
    fewer = {name: values[name] for name in ("image", "sound", "drawing")}
    more = {
        "image": values["image"],
        "points": values["points"],
        "sound": values["sound"],
        "drawing": values["drawing"],
    }
    adapters = {"lora": {"type": "lora", "rank": 2}}
    small, large = (
        compose(config_of(omni_folder, modalities=rows, adapters=adapters), base=omni_folder) for rows in (fewer, more)
    )
    for model in (small, large):
        with torch.no_grad():
            for component, _, value in model.named_component_parameters():
                if component == "lora":
                    value.fill_(0.01)
    for sample in (asked(Text("plain")), SAMPLE, Sample("s", SAMPLE.turns * 2)):
        ours, theirs = (logits_of(model, model.planner.plan(sample))[0] for model in (small, large))
        assert torch.equal(ours, theirs)


def test_a_part_that_two_modalities_share_adds_its_loss_for_both(omni_folder):
    shared = {"room": "projectors", "type": "window_qformer", "width": 16, "heads": 2, "depth": 1, "windows": [4]}
    rows = example_values()["modalities"]
    for name in ("image", "motion"):
        rows[name]["in"]["projector"] = {"component": "windows"}
    model = compose(config_of(omni_folder, modalities=rows, components={"windows": shared}), base=omni_folder)
    plans = [model.planner.plan(asked(*items)) for items in ([media("image")], [media("motion", 3)])]
    both = model.planner.plan(asked(media("image"), media("motion", 3)))
    alone = [model.media(plan)[1]["windows/diversity"] for plan in plans]
    found = model.media(both)[1]["windows/diversity"]
    torch.testing.assert_close(found.count, alone[0].count + alone[1].count)
    torch.testing.assert_close(found.total, alone[0].total + alone[1].total)
