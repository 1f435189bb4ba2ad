"""Interactions that bring inner layers of an encoder to slots: rows added behind layers, one slot replaced in front."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from omniloom.errors import ConfigError, ShapeError
from omniloom.interaction.base import Moment, SlotFacts
from omniloom.interaction.deepstack import StackedRows
from omniloom.interaction.taps import Placed
from omniloom.sequence import Packed, Plan, Text
from omniloom.testing.doubles import tiny_language_model
from tests.examples import answered, asked, example_values, logits_of, media, write_example
from tests.interaction.laws import assert_decoding, gradients_of, model_with, plain_model, reloaded, stir, together

STACKED = {"type": "deepstack", "inputs": ["image"], "taps": {0: 0, 1: 2}}
INJECTED = {"type": "token_injection", "inputs": ["image"], "taps": {1: 2}}
KINDS = {
    "deepstack": STACKED,
    "deepstack, chain": {**STACKED, "projector": ["mlp", {"type": "linear", "bias": False}], "gated": True},
    "injection": INJECTED,
    "injection, shared": {**INJECTED, "taps": {0: 1, 1: 2}, "vector": "first", "shared": True},
    "injection, pooled": {**INJECTED, "taps": {1: "pooled"}},
}
SAMPLES = [
    asked(Text("plain")),
    asked(Text("see"), media("image", 1), Text("and"), media("sound", 1), Text("both")),
    answered((Text("ab"), media("image", 2), Text("cd"), media("image", 3)), Text("two")),
    answered((media("image", 5),), Text("b")),
]


def write_tower(path):
    """A vision tower that gives its inner layers."""
    vision = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    text = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 9,
    }
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(vision_config={**vision, "image_size": 16, "patch_size": 8}, text_config=text, projection_dim=12)
    )
    for value in model.parameters():
        value.data += 0.1 * torch.randn(value.shape)
    model.save_pretrained(path / "tower")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The example with a layer more, and a vision tower."""
    path = write_example(tmp_path_factory.mktemp("tapped"))
    tiny_language_model(path / "language-model", layers=3)
    write_tower(path)
    return path


def modalities_of(kind):
    tokens = "cls" if kind["type"] == "token_injection" else "patches"
    encoder = {"type": "hub_vision", "id": "./tower", "taps": [0, 1, 2], "tokens": tokens, "pooled": True}
    row = example_values()["modalities"]["image"]
    return {"image": {**row, "in": {**row["in"], "encoder": encoder, "projector": "linear"}}}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture(scope="module")
def modalities(kind):
    return modalities_of(kind)


@pytest.fixture(scope="module")
def adapted(folder, kind, modalities):
    model = model_with(folder, modalities=modalities, a=kind)
    stir(model, "a", scale=0.3)
    return model


def test_conversations_without_items_and_slots_before_them_are_untouched_and_all_others_feel_it(
    folder, kind, modalities, adapted
):
    plain = plain_model(folder, modalities=modalities)
    for sample in SAMPLES:
        plan = plain.planner.plan(sample)
        starts = [item.start for item in plan.items if item.modality == "image"]
        ours, theirs = logits_of(adapted, plan)[0], logits_of(plain, plan)[0]
        first = min(starts) if starts else plan.shape[1]
        assert torch.equal(ours[:first], theirs[:first])
        assert bool((ours != theirs).any(1)[first:].all())


def test_padded_and_packed_batches_are_what_their_samples_are_alone(adapted):
    assert together(adapted, SAMPLES) <= 1e-4
    assert together(adapted, SAMPLES[::-1], 100) <= 1e-4


def test_decoding_with_the_cache_is_the_whole_pass_again(adapted):
    assert_decoding(adapted, SAMPLES)


def test_gradients_reach_every_parameter_of_the_adapter_and_none_beside(adapted):
    grads = gradients_of(adapted, "a", Plan.stack([adapted.planner.plan(sample) for sample in SAMPLES]))
    assert all(grad is not None and bool(grad.any()) for grad in grads.values())


def test_gradients_are_the_same_when_layers_run_again(folder, kind, modalities):
    grads = []
    for again in (False, True):
        model = model_with(folder, backbone={"gradient_checkpointing": again}, modalities=modalities, a=kind)
        stir(model, "a", scale=0.3)
        trained = model.train_only(["a"])
        model.loss(Plan.pack([model.planner.plan(sample) for sample in SAMPLES], 200))["text"][0].backward()
        grads.append({name: value.grad for name, value in trained.items()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-4, rtol=1e-3)


def test_a_saved_adapter_gives_the_same_logits_bit_for_bit(folder, tmp_path, kind, modalities, adapted):
    loaded = reloaded(adapted, folder, tmp_path, modalities=modalities, a=kind)
    plan = Plan.stack([adapted.planner.plan(sample) for sample in SAMPLES])
    assert all(torch.equal(*pair) for pair in zip(logits_of(loaded, plan), logits_of(adapted, plan), strict=True))


def test_it_runs_over_a_bfloat16_language_model(folder, kind, modalities):
    model = model_with(folder, backbone={"dtype": "bfloat16"}, modalities=modalities, a=kind)
    hidden = model.hidden(Plan.stack([model.planner.plan(sample) for sample in SAMPLES]))
    assert hidden.dtype == torch.bfloat16 and bool(hidden.isfinite().all())


# -- rows added -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_behind_a_layer_the_projected_rows_of_its_tap_are_added_at_the_slots_in_order(folder):
    spec = {**STACKED, "taps": {0: 1}}
    plain, adapted = (model_with(folder, modalities=modalities_of(spec), **more) for more in ({}, {"a": spec}))
    plan = plain.planner.plan(SAMPLES[2])
    tap = {}
    for name, model in (("plain", plain), ("adapted", adapted)):
        model.backbone.layers[1].register_forward_pre_hook(lambda part, args, name=name: tap.update({name: args[0]}))
        model.hidden(plan)
    given, _ = plain.media(plan)
    linear = adapted.backbone.adapters["a"]["image"]["0"][0]
    expected = torch.zeros_like(tap["plain"])
    expected[plan.kind == 3] = linear.map(given["image"].encoded.taps[1])
    torch.testing.assert_close(tap["adapted"] - tap["plain"], expected, atol=1e-4, rtol=0)


def test_a_gate_makes_a_new_adapter_change_nothing_bit_for_bit(folder):
    spec = {**STACKED, "gated": True}
    plain, adapted = (model_with(folder, modalities=modalities_of(spec), **more) for more in ({}, {"a": spec}))
    for sample in SAMPLES:
        plan = plain.planner.plan(sample)
        assert torch.equal(logits_of(plain, plan)[0], logits_of(adapted, plan)[0])


def test_rows_that_a_budget_leaves_out_are_left_out_of_every_layer(folder):
    modalities = modalities_of(STACKED)
    modalities["image"]["in"]["slots"] = {"max": 3, "over": "resample"}
    model = model_with(folder, modalities=modalities, a={**STACKED, "taps": {0: 1}})
    plan = model.planner.plan(SAMPLES[1])
    item = next(item for item in plan.items if item.modality == "image")
    assert item.keep is not None and item.length == 3
    given, _ = model.media(plan)
    placed = model.adapters["a"].prepare(Moment(plan, model.embed(plan), given))[0]
    linear = model.backbone.adapters["a"]["image"]["0"][0]
    torch.testing.assert_close(placed.rows, linear.map(given["image"].encoded.taps[1][list(item.keep)]))
    assert placed.slot.tolist() == list(range(item.start, item.start + 3))


def test_other_numbers_of_rows_than_the_items_own_are_refused(folder):
    spec = {**STACKED, "projector": [{"type": "pool", "tokens": 2}, "linear"]}
    model = model_with(folder, modalities=modalities_of(spec), a=spec)
    with pytest.raises(ShapeError, match=r"became 2 rows for sample 'a', whose item has 6"):
        model.hidden(model.planner.plan(SAMPLES[1]))


@pytest.mark.parametrize("runs", [[0, 1, 2, 3, 4, 5], [2, 3, 4, 5], [0, 3, 5, 4]], ids=str)
def test_rows_find_their_slots_where_only_some_of_a_plan_run(runs):
    """One side of an encoder-decoder; its padding repeats a number, and is of no document."""
    slot = torch.tensor([[*runs, 5]])
    document = torch.zeros_like(slot)
    document[0, -1] = -1
    rows = torch.ones(2, 4) * torch.tensor([[1.0], [2.0]])
    placed = Placed(rows, torch.tensor([0, 0]), torch.tensor([3, 5]))
    facts = SlotFacts(document, document, slot, sides={"a": {0: placed}})
    out = StackedRows("a", 0, gated=False)(torch.zeros(1, len(runs) + 1, 4), facts)
    assert out[0, :, 0].tolist() == [{3: 1.0, 5: 2.0}.get(number, 0.0) for number in runs] + [0.0]


# -- one slot replaced ------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_in_front_of_each_layer_the_slot_holds_the_connected_vector_of_its_tap(folder):
    spec = {**INJECTED, "taps": {0: 0, 1: 2}}
    model = model_with(folder, modalities=modalities_of(spec), a=spec)
    plan = model.planner.plan(SAMPLES[2])
    seen = []
    for layer in model.backbone.layers:
        layer.register_forward_pre_hook(lambda part, args: seen.append(args[0]))
    model.hidden(plan)
    given, _ = model.media(plan)
    for layer, tap in ((0, 0), (1, 2)):
        connector = model.backbone.adapters["a"]["image"][str(layer)]
        expected = connector(given["image"].encoded.taps[tap])
        torch.testing.assert_close(seen[layer][plan.kind == 3], expected)


@torch.no_grad()
def test_below_the_first_layer_no_other_slot_feels_the_item_and_above_all_that_follow_do(folder):
    model = model_with(folder, modalities=modalities_of(INJECTED), a=INJECTED)
    first, second = (model.planner.plan(asked(Text("a"), media("image", seed), Text("bcd"))) for seed in (0, 2))
    states = []
    model.backbone.layers[1].register_forward_pre_hook(lambda part, args: states.append(args[0]))
    ours, theirs = model.hidden(first)[0], model.hidden(second)[0]
    other = first.kind[0] != 3
    assert torch.equal(states[0][0, other], states[1][0, other])
    start = first.items[0].start
    assert torch.equal(ours[:start], theirs[:start]) and bool((ours != theirs).any(1)[start:].all())


@torch.no_grad()
def test_the_lower_layers_run_as_if_the_slot_were_not_there(folder):
    """But for its position: the slots behind it stand one further on."""
    model = model_with(folder, modalities=modalities_of(INJECTED), a=INJECTED)
    plan = model.planner.plan(asked(Text("a"), media("image", 0), Text("bcd")))
    start = plan.items[0].start
    keep = [slot for slot in range(plan.shape[1]) if slot != start]
    without = {name: value[..., keep] for name, value in plan.tensors().items()}
    without["item"] = torch.full_like(without["item"], -1)
    states = []
    model.backbone.layers[1].register_forward_pre_hook(lambda part, args: states.append(args[0]))
    model.hidden(plan)
    bare = replace(plan, **without, items=())
    # A model that is told positions skips the one of the slot.
    model.backbone.lm.model(inputs_embeds=model.embed(bare), position_ids=plan.position[0][:, keep])
    torch.testing.assert_close(states[0][:, keep], states[1], atol=1e-5, rtol=0)


def test_an_item_of_several_slots_is_refused(folder):
    model = model_with(folder, modalities=modalities_of(STACKED), a=INJECTED)
    with pytest.raises(ShapeError, match="an item of 'image' fills 6 slots"):
        model.hidden(model.planner.plan(SAMPLES[1]))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({**STACKED, "inputs": []}, "deepstack needs `inputs`"),
        ({**STACKED, "taps": {}}, "needs `taps`"),
        ({**STACKED, "taps": {3: 0}}, "tap for layer 3; the language model has 3 layers"),
        ({**STACKED, "taps": {0: 7}}, "reads layer 7 of the encoder of 'image', which gives: 0, 1, 2"),
        ({**STACKED, "inputs": ["sound"]}, "encoder of 'sound', which gives: no inner layers"),
        ({**STACKED, "projector": "pool"}, "end at width 24, the language model takes 32"),
        ({**INJECTED, "inputs": []}, "token injection needs `inputs`"),
        ({**INJECTED, "vector": "last"}, r"'vector' is 'last'.*'first', 'mean'"),
        (
            {**INJECTED, "inputs": ["sound"], "taps": {1: "pooled"}},
            "pooled vector of 'sound', whose",
        ),
        ({**INJECTED, "taps": {0: 1, 1: "pooled"}, "shared": True}, r"vectors of widths \[12, 24\] of 'image'"),
    ],
    ids=str,
)
def test_an_adapter_that_means_nothing_is_refused(folder, spec, message):
    with pytest.raises(ConfigError, match=message):
        model_with(folder, modalities=modalities_of(INJECTED), a=spec)


def test_items_that_were_kept_without_inner_layers_are_refused(folder):
    model = model_with(folder, modalities=modalities_of(STACKED), a=STACKED)
    plan = model.planner.plan(SAMPLES[3])
    given, _ = model.media(plan)
    bare = Packed(given["image"].encoded.x.detach(), given["image"].encoded.shapes)
    kept = replace(plan, items=tuple(replace(item, raw=None, features=bare) for item in plan.items))
    with pytest.raises(ShapeError, match="come without rows of layer 0"):
        model.hidden(kept)
