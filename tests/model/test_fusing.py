"""Fusers in a composed model: planned, spliced, trained, saved and drawn."""

from __future__ import annotations

import shutil

import pytest
import torch

from omniloom.checkpoint import load_model, save_model
from omniloom.cli.showing import show
from omniloom.errors import ConfigError
from omniloom.eval.graph_svg import draw_graph
from omniloom.model import Sampling, compose, generate, require_read
from omniloom.model.graph import graph_of, mermaid
from omniloom.planner import Planner
from omniloom.registry import build
from omniloom.sequence import Item, Kind, Packed, Plan, Sample, Shape, Text
from omniloom.sequence.proof import prove
from tests.examples import answered, asked, config_of, example_values, largest, logits_of, media, plans_of

FUSERS = {
    "sum": {"type": "sum"},
    "weighted": {"type": "weighted", "weights": {"sound": 2.0}},
    "gated": {"type": "gated", "mode": "append"},
    "channels": {"type": "channels", "projector": [{"type": "pool", "tokens": 1}, "linear"]},
    "clue": {"type": "clue", "queries": 2, "width": 16, "heads": 2, "depth": 1},
    "cross": {"type": "cross", "width": 16, "heads": 2},
}
ROWS = {"sum": 2, "weighted": 2, "gated": 4, "channels": 1, "clue": 4, "cross": 2}
every = pytest.mark.parametrize("name", FUSERS)


def values(**fusers):
    """The example's run with two rows an item of pictures and sounds, and these fusers of both."""
    rows = example_values()["modalities"]
    for name in ("image", "sound"):
        rows[name]["in"]["projector"] = [{"type": "pool", "tokens": 2}, "mlp"]
    made = {name: {"inputs": ["image", "sound"], **options} for name, options in fusers.items()}
    return {"modalities": rows, "fusers": made, "adapters": {}}


def model_of(folder, **fusers):
    return compose(config_of(folder, **values(**fusers)), base=folder)


@pytest.fixture(scope="module", params=FUSERS)
def fused(request, omni_folder):
    """(type, a model with one fuser of it)."""
    return request.param, model_of(omni_folder, pair=FUSERS[request.param])


def both(n=1, *, name="a"):
    return answered(
        (Text("see "), media("image", n), Text(" hear "), media("sound", n), Text(" what?")), Text("yes"), name=name
    )


def layout(plan: Plan) -> list[str]:
    """Modality of every run of media slots, "text" between them."""
    names = [
        plan.modalities[modality] if kind == int(Kind.MEDIA) else "text"
        for kind, modality in zip(plan.kind[0].tolist(), plan.modality[0].tolist(), strict=True)
    ]
    return [name for place, name in enumerate(names) if place == 0 or names[place - 1] != name]


# -- plans ----------------------------------------------------------------------------------------------------------


def test_fused_rows_stand_in_one_run_and_their_sources_have_no_slots(fused):
    name, model = fused
    plan = model.planner.plan(both())
    image, sound, pair = (next(item for item in plan.items if item.modality == m) for m in ("image", "sound", "pair"))
    assert layout(plan) == ["text", "pair", "text"] and plan.check() is plan
    assert (image.role, sound.role, image.length, sound.length) == ("source", "source", 0, 0)
    assert pair.length == ROWS[name] and pair.parts == (plan.items.index(image), plan.items.index(sound))
    assert plan.slots_of(plan.items.index(pair)).tolist() == list(range(pair.start, pair.start + pair.length))


def test_rows_stand_where_the_first_or_the_last_of_the_parts_stood(omni_folder):
    before, behind = (
        model_of(omni_folder, pair={"type": "sum", "insert": place}).planner for place in ("first", "last")
    )
    texts = []
    for planner in (before, behind):
        plan = planner.plan(both())
        start = next(item.start for item in plan.items if item.modality == "pair")
        texts.append(planner.decode(plan.ids[0, :start].tolist()))
    assert texts[0].endswith("see ") and texts[1].endswith("see  hear ")


def test_kept_inputs_have_their_own_slots_beside(omni_folder):
    model = model_of(omni_folder, pair={"type": "cross", "width": 16, "heads": 2, "keep": ["sound"], "insert": "last"})
    plan = model.planner.plan(both())
    assert layout(plan) == ["text", "sound", "text", "pair", "text"]
    roles = {item.modality: item.role for item in plan.items}
    assert roles == {"image": "source", "sound": "in", "pair": "in"}


def test_the_kth_items_of_a_turn_belong_together(omni_folder):
    model = model_of(omni_folder, pair={"type": "sum"})
    parts = (media("image", 1), media("image", 2), Text("and"), media("sound", 1), media("sound", 2))
    plan = model.planner.plan(asked(*parts))
    first, second = (item for item in plan.items if item.modality == "pair")
    kinds = [[plan.items[part].modality for part in item.parts] for item in (first, second)]
    assert kinds == [["image", "sound"]] * 2 and not set(first.parts) & set(second.parts)
    embeds = model.embed(plan)
    for item, n in ((first, 1), (second, 2)):
        alone = [model.project(m, model.planner.plan(asked(media(m, n))).items).x for m in ("image", "sound")]
        got = embeds[0, item.start : item.start + item.length]
        torch.testing.assert_close(got, alone[0] + alone[1], atol=1e-5, rtol=1e-5)


def test_items_of_two_turns_are_not_fused(omni_folder):
    model = model_of(omni_folder, pair={"type": "sum"})
    first, later = answered((media("image", 1),), Text("a")), asked(media("sound", 1))
    plan = model.planner.plan(Sample("s", (*first.turns, *later.turns)))
    assert [item.modality for item in plan.items] == ["image", "sound"]


def test_with_all_an_incomplete_group_stays_apart_and_with_any_it_is_fused(omni_folder):
    sample = asked(Text("q"), media("sound", 1))
    whole = model_of(omni_folder, pair={"type": "sum"}).planner.plan(sample)
    assert [item.modality for item in whole.items] == ["sound"] and whole.items[0].length == 2
    model = model_of(omni_folder, pair={**FUSERS["channels"], "when": "any"})
    plan = model.planner.plan(sample)
    assert layout(plan) == ["text", "pair", "text"] and bool(model.hidden(plan).isfinite().all())


def test_two_fusers_may_read_the_same_items(omni_folder):
    model = model_of(omni_folder, pair={"type": "sum"}, clues=FUSERS["clue"])
    plan = model.planner.plan(both())
    assert [item.modality for item in plan.items if item.length] == ["pair", "clues"]
    assert bool(model.hidden(plan).isfinite().all())


def cut(model, length: int, overflow: str = "start") -> Plan:
    """The plan of `both()` at that length."""
    base = model.planner
    options = {"fusers": base.fusers, "max_length": length, "overflow": overflow}
    return Planner(base.tokenizer, base.template, base.rows, base.vocabulary, **options).plan(both())


def test_a_cut_takes_fused_rows_with_their_sources(omni_folder):
    model = model_of(omni_folder, pair={"type": "sum"})
    whole = model.planner.plan(both())
    pair = next(item for item in whole.items if item.modality == "pair")
    fits = cut(model, whole.shape[1] - pair.start)
    assert {item.modality for item in fits.items} == {"image", "sound", "pair"}
    assert not cut(model, whole.shape[1] - pair.start - 1).items


def test_a_cut_input_is_still_fused_where_the_fused_rows_stay(omni_folder):
    model = model_of(omni_folder, pair={"type": "sum", "keep": ["image"], "insert": "last"})
    whole = model.planner.plan(both())
    pair = next(item for item in whole.items if item.modality == "pair")
    plan = cut(model, whole.shape[1] - pair.start)
    assert {item.modality: (item.role, item.length) for item in plan.items} == {
        "image": ("source", 0), "sound": ("source", 0), "pair": ("in", 2)
    }  # fmt: skip
    rows = [model.embed(p)[0][p.modality[0] == p.modalities.index("pair")] for p in (plan, whole)]
    assert torch.equal(rows[0], rows[1])


def test_an_alignment_of_an_input_that_is_cut_is_gone(omni_folder):
    model = model_of(omni_folder, match={"type": "align", "width": 16, "heads": 2})
    whole = model.planner.plan(both())
    sound = next(item for item in whole.items if item.modality == "sound")
    assert [item.modality for item in cut(model, whole.shape[1] - sound.start).items] == ["sound"]
    assert len(cut(model, whole.shape[1] - 6).items) == 3


# -- models -----------------------------------------------------------------------------------------------------------


def test_samples_are_the_same_alone_padded_and_packed(fused):
    _, model = fused
    samples = [both(1), asked(media("image", 2)), both(4), asked(Text("no media")), both(2)]
    plans = plans_of(model, samples)
    alone = [logits_of(model, plan)[0] for plan in plans]
    packed = Plan.pack(plans, 300)
    assert packed.is_packed
    for batch in (Plan.stack(plans), packed):
        assert largest(logits_of(model, batch), alone) <= 1e-4


def test_either_medium_changes_what_is_said(fused):
    _, model = fused

    def said(image, sound):
        parts = (media("image", image), media("sound", sound), Text("what?"))
        return logits_of(model, model.planner.plan(asked(*parts)))[0][-1]

    first = said(1, 1)
    assert not torch.equal(first, said(3, 1)) and not torch.equal(first, said(1, 4))


def test_a_gradient_reaches_both_encoders_and_the_fuser(fused):
    _, model = fused
    own = ["pair*"] if list(model.parts["pair"].parameters()) or "pair/projector2" in model.parts else []
    trained = model.train_only(["image/*", "sound/*", *own])
    try:
        model.losses(Plan.stack(plans_of(model, [both(1), both(4)]))).total().backward()
        got = [name for name, value in trained.items() if value.grad is not None and value.grad.any()]
    finally:
        model.zero_grad(set_to_none=True)
        model.requires_grad_(False).eval()
    reached = {name.partition(".")[0] for name in got}
    assert reached >= {"image/encoder", "image/projector2", "sound/encoder", "sound/projector2"}
    assert "pair" in reached or not list(model.parts["pair"].parameters())
    assert "pair/projector2" in reached or "pair/projector2" not in model.parts


def test_it_answers_as_in_one_pass(fused):
    _, model = fused
    plans = [model.planner.plan(both(n).prompt(), ask=True) for n in (1, 2)]
    replies = generate(model, plans, Sampling(max_new=4))
    assert [generate(model, [plan], Sampling(max_new=4))[0] for plan in plans] == replies


@every
def test_saved_and_loaded_it_is_bit_equal(omni_folder, tmp_path, name):
    config, model = config_of(omni_folder, **values(pair=FUSERS[name])), model_of(omni_folder, pair=FUSERS[name])
    shutil.copytree(omni_folder / "language-model", tmp_path / "language-model")
    save_model(model, config, tmp_path, trained=list(model.components()))
    loaded = load_model(tmp_path)[0]
    plan = model.planner.plan(both())
    assert torch.equal(logits_of(loaded, plan)[0], logits_of(model, plan)[0])
    assert set(loaded.components()) == set(config.component_names)


def test_rows_meet_on_the_clock_of_their_clip(omni_folder):
    model = model_of(omni_folder, pair=FUSERS["channels"])
    seen = []
    model.parts["pair"].register_forward_pre_hook(lambda part, args: seen.append(args[0]))
    encoded = {m: Packed(torch.randn(4, 32), (Shape(4, times=(0.0, 0.5, 1.0, 1.5)),)) for m in ("image", "sound")}
    items = (Item("image", encoded["image"], t0=10.0), Item("sound", encoded["sound"], t0=11.0))
    model.hidden(model.planner.plan(asked(*items, Text("q"))))
    group = seen[0][0]
    assert group["image"].shapes[0].times == (10.0, 11.0) and group["sound"].shapes[0].times == (11.0, 12.0)


def test_an_alignment_adds_a_loss_and_no_rows(omni_folder):
    spec = {"type": "align", "width": 16, "heads": 2, "weight": 0.5}
    plain, model = model_of(omni_folder), model_of(omni_folder, match=spec)
    samples = [both(1), both(2), both(4), asked(Text("none"))]
    plans = plans_of(model, samples)
    assert layout(plans[0]) == layout(plain.planner.plan(both())) == ["text", "image", "text", "sound", "text"]
    batch = Plan.stack(plans)
    trained = model.train_only(["match", "image/*", "sound/*"])
    losses = model.losses(batch)
    contrast = losses.auxiliary["match/contrast"]
    text, count = losses.sums()["text"]
    assert float(contrast.count) == 3
    torch.testing.assert_close(losses.total(), text / count + 0.5 * contrast.total / 3)
    losses.total().backward()
    assert all(value.grad is not None for name, value in trained.items() if name.startswith("match."))
    model.requires_grad_(False).eval()
    ours, theirs = (logits_of(m, Plan.stack(plans_of(m, samples))) for m in (model, plain))
    assert largest(ours, theirs) == 0.0


def test_a_fuser_that_ends_at_another_width_is_refused(omni_folder):
    with pytest.raises(ConfigError, match="the fuser 'pair' ends at width 64, the language model takes 32"):
        model_of(omni_folder, pair={"type": "channels"})


def test_an_adapter_may_be_routed_to_the_rows_of_a_fuser(omni_folder):
    changes = values(pair={"type": "sum"})
    changes["adapters"] = {"lora": {"type": "lora", "rank": 2, "routes": ["pair"]}}
    model = compose(config_of(omni_folder, **changes), base=omni_folder)
    plan = model.planner.plan(both())
    before = logits_of(model, plan)[0]
    with torch.no_grad():
        for value in model.components()["lora"].values():
            value.normal_(0, 0.3)
    start = next(item.start for item in plan.items if item.modality == "pair")
    after = logits_of(model, plan)[0]
    assert torch.equal(after[:start], before[:start]) and bool((after[start:] != before[start:]).any(1).all())


# -- read inside the layers -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def beside(omni_folder):
    """A model whose layers read the sum of a picture and a sound, which fill no slots."""
    changes = values(pair={"type": "sum", "insert": "inject", "when": "any"})
    changes["adapters"] = {"reads": {"type": "gated_attention", "inputs": ["pair"]}}
    model = compose(config_of(omni_folder, **changes), base=omni_folder)
    with torch.no_grad():
        for value in model.components()["reads"].values():
            value.normal_(0, 0.5)
    return model


def test_fused_rows_that_are_read_inside_the_layers_fill_no_slots(beside):
    plan = beside.planner.plan(both())
    assert layout(plan) == ["text"] and (plan.kind != int(Kind.MEDIA)).all()
    assert {item.modality: (item.role, item.length, item.rows) for item in plan.items} == {
        "image": ("source", 0, 2), "sound": ("source", 0, 2), "pair": ("side", 0, 2)
    }  # fmt: skip
    prove(plan)


def test_the_layers_read_what_was_fused_and_not_its_parts(beside):
    plan = beside.planner.plan(both())
    seen = []
    hook = beside.parts["pair"].register_forward_hook(lambda part, args, output: seen.append(output.x))
    try:
        first = logits_of(beside, plan)[0]
        rows = seen[0]
        assert not torch.equal(first, logits_of(beside, beside.planner.plan(both(3)))[0])
    finally:
        hook.remove()
    media, _ = beside.media(plan)
    torch.testing.assert_close(rows, media["image"].projected.x + media["sound"].projected.x)
    (sides,) = beside.run(plan).facts.sides.values()
    assert torch.equal(sides.rows[0], rows) and len(set(sides.item[0].tolist())) == 1
    start = next(item.start for item in plan.items if item.modality == "pair")
    other = beside.planner.plan(both(3))
    assert torch.equal(first[:start], logits_of(beside, other)[0][:start])


def test_what_is_read_beside_is_the_same_alone_packed_and_decoded(beside):
    samples = [both(1), asked(media("image", 2)), both(4), asked(Text("no media"))]
    plans = plans_of(beside, samples)
    alone = [logits_of(beside, plan)[0] for plan in plans]
    for batch in (Plan.stack(plans), Plan.pack(plans, 200)):
        assert largest(logits_of(beside, batch), alone) <= 1e-4
    asks = [beside.planner.plan(both(n).prompt(), ask=True) for n in (1, 2)]
    replies = generate(beside, asks, Sampling(max_new=4))
    assert [generate(beside, [plan], Sampling(max_new=4))[0] for plan in asks] == replies


def test_a_cut_beside_takes_the_fused_rows_and_their_sources(omni_folder):
    changes = values(pair={"type": "sum", "insert": "inject"})
    changes["adapters"] = {"reads": {"type": "gated_attention", "inputs": ["pair", "image", "sound"]}}
    model = compose(config_of(omni_folder, **changes), base=omni_folder)
    whole = model.planner.plan(both())
    kept = cut(model, whole.shape[1] - 1)
    assert {item.modality: item.role for item in kept.items} == {"image": "source", "sound": "source", "pair": "side"}
    prove(kept)
    gone = cut(model, whole.shape[1] - next(item.start for item in whole.items if item.modality == "pair") - 1)
    assert not gone.items


def test_media_that_nothing_reads_are_refused(omni_folder):
    with pytest.raises(ConfigError, match="'pair' has `insert: inject`"):
        require_read(model_of(omni_folder, pair={"type": "sum", "insert": "inject"}))
    changes = values()
    changes["modalities"]["image"]["in"]["insert"] = "inject"
    with pytest.raises(ConfigError, match="'image' has `insert: inject`"):
        require_read(compose(config_of(omni_folder, **changes), base=omni_folder))
    changes["adapters"] = {"reads": {"type": "gated_attention", "inputs": ["image"]}}
    require_read(compose(config_of(omni_folder, **changes), base=omni_folder))
    changes["fusers"] = {"pair": {"type": "sum", "inputs": ["image", "sound"], "when": "any"}}
    with pytest.raises(ConfigError, match="adapter 'reads' reads 'image', but the fuser 'pair' takes every item of it"):
        require_read(compose(config_of(omni_folder, **changes), base=omni_folder))
    changes["fusers"]["pair"]["keep"] = ["image"]
    require_read(compose(config_of(omni_folder, **changes), base=omni_folder))
    del changes["fusers"]["pair"]["keep"], changes["adapters"]
    require_read(compose(config_of(omni_folder, **changes), base=omni_folder))


@pytest.mark.parametrize("kind", ["token_injection", "deepstack"])
def test_what_needs_slots_reads_nothing_beside_them(omni_folder, kind):
    changes = values()
    changes["modalities"]["image"]["in"]["insert"] = "inject"
    changes["adapters"] = {"reads": {"type": "gated_attention", "inputs": ["image"]}}
    model = compose(config_of(omni_folder, **changes), base=omni_folder)
    require_read(model)
    model.adapters["reads"] = build("interaction", {"type": kind, "inputs": ["image"], "taps": {0: 0}})
    with pytest.raises(ConfigError, match="'image' has `insert: inject`"):
        require_read(model)


def test_a_fuser_may_take_rows_that_no_projector_touched(omni_folder):
    changes = values(pair={"type": "channels", "projector": [{"type": "pool", "tokens": 1}, "linear"], "when": "any"})
    for name in ("image", "sound"):
        changes["modalities"][name]["in"]["projector"] = None
    config = config_of(omni_folder, **changes)
    assert not [name for name in config.component_names if name.startswith(("image/p", "sound/p"))]
    model = compose(config, base=omni_folder)
    plan = model.planner.plan(both())
    seen = []
    model.parts["pair"].register_forward_pre_hook(lambda part, args: seen.append(args[0]))
    logits_of(model, plan)
    item = next(item for item in plan.items if item.modality == "image")
    assert torch.equal(seen[0][0]["image"].x, model.parts["image/encoder"]([item.raw]).x)


def test_rows_of_the_language_models_width_need_no_projector(omni_folder):
    changes = values()
    changes["modalities"]["image"]["in"]["projector"] = None
    model = compose(config_of(omni_folder, **changes), base=omni_folder)
    plan = model.planner.plan(asked(media("image", 1)))
    (item,) = plan.items
    rows = model.embed(plan)[0][plan.slots_of(0)]
    assert torch.equal(rows, model.parts["image/encoder"]([item.raw]).x)
    changes["modalities"]["image"]["in"]["encoder"]["width"] = 16
    kept = {"type": "clue", "queries": 2, "width": 16, "heads": 2, "depth": 1, "inputs": ["image", "sound"]}
    aligned = {"type": "align", "width": 16, "heads": 2, "inputs": ["image", "sound"]}
    for fusers in ({}, {"clue": {**kept, "keep": ["image"]}}, {"match": aligned}):
        with pytest.raises(ConfigError, match="the projectors of 'image' end at width 16"):
            compose(config_of(omni_folder, **{**changes, "fusers": fusers}), base=omni_folder)
    compose(config_of(omni_folder, **{**changes, "fusers": {"clue": kept}}), base=omni_folder)


# -- shown ------------------------------------------------------------------------------------------------------------


def test_fusers_are_drawn_between_their_inputs_and_the_language_model(omni_folder):
    fusers = {"pair": {**FUSERS["channels"], "keep": ["sound"]}, "match": {"type": "align", "width": 16, "heads": 2}}
    config = config_of(omni_folder, **values(**fusers))
    model = compose(config, base=omni_folder)
    nodes, edges = graph_of(model, config)
    kinds = {node.id: node.kind for node in nodes}
    assert kinds["pair"] == kinds["match"] == kinds["pair/projector2"] == "fuser"
    arrows = {(edge.source, edge.target) for edge in edges}
    assert {("image/projector2", "pair"), ("sound/projector2", "pair"), ("pair", "pair/projector1")} <= arrows
    assert {("pair/projector1", "pair/projector2"), ("pair/projector2", "backbone")} <= arrows
    assert ("image/projector2", "match") in arrows and not [arrow for arrow in arrows if arrow[0] == "match"]
    assert ("sound/projector2", "backbone") in arrows and ("image/projector2", "backbone") not in arrows
    assert "Channels" in mermaid(nodes, edges)
    assert "Channels" in draw_graph(nodes, edges, [])
    assert next(node for node in nodes if node.id == "match").parameters > 0


def test_fused_rows_that_are_read_inside_are_drawn_into_their_adapter(omni_folder, capsys):
    changes = values(pair={"type": "sum", "insert": "inject"})
    changes["adapters"] = {"reads": {"type": "gated_attention", "inputs": ["pair"]}}
    config = config_of(omni_folder, **changes)
    arrows = {(edge.source, edge.target) for edge in graph_of(compose(config, base=omni_folder), config)[1]}
    assert {("image/projector2", "pair"), ("pair", "reads"), ("reads", "backbone")} <= arrows
    assert ("pair", "backbone") not in arrows
    show(omni_folder / "changed.yaml")
    assert "pair: image + sound -> Sum, read inside the layers" in capsys.readouterr().out


def test_show_tells_of_fusers(omni_folder, capsys):
    config_of(omni_folder, **values(pair=FUSERS["channels"]))
    show(omni_folder / "changed.yaml")
    told = capsys.readouterr().out
    assert "pair: image + sound -> Channels -> Pool -> Linear" in told
