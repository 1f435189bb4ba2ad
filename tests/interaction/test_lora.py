"""Low-rank adapters: nothing at first, then only where they are routed."""

from __future__ import annotations

import pytest
import torch

from omniloom.errors import ConfigError
from omniloom.interaction.base import SlotFacts
from omniloom.interaction.lora import LoRA, LowRank, Merged
from omniloom.interaction.routes import Where
from omniloom.model import compose
from omniloom.sequence import Plan, Text
from tests.examples import asked, config_of, drawing, example_values, logits_of, media
from tests.interaction.laws import decoded, model_with, stir

SAMPLES = [
    asked(Text("plain")),
    asked(Text("see"), media("image", 1), Text("and"), media("sound", 1)),
    asked(drawing(2), Text("x")),
]


def test_a_new_adapter_changes_nothing_bit_for_bit(omni_folder):
    plain, adapted = (
        model_with(omni_folder),
        model_with(omni_folder, a={"type": "lora"}, b={"type": "lora", "routes": ["image"]}),
    )
    assert sum(value.numel() for value in adapted.components()["a"].values()) > 0
    for sample in SAMPLES:
        plan = plain.planner.plan(sample)
        assert torch.equal(logits_of(plain, plan)[0], logits_of(adapted, plan)[0])


@pytest.mark.parametrize("routes", [["sound"], ["image", "sound"], ["drawing"], ["text"]], ids=str)
def test_a_routed_adapter_changes_what_follows_its_slots_and_nothing_else(omni_folder, routes):
    plain, adapted = model_with(omni_folder), model_with(omni_folder, a={"type": "lora", "routes": routes})
    stir(adapted, "a")
    numbers = {"text": 0, **{name: index + 1 for index, name in enumerate(plain.planner.modalities)}}
    touched = torch.tensor([numbers[name] for name in routes])
    changed_any = False
    for sample in SAMPLES:
        plan = plain.planner.plan(sample)
        routed = torch.isin(plan.route[0], touched).nonzero()[:, 0].tolist()
        first = routed[0] if routed else plan.shape[1]
        ours, theirs = logits_of(adapted, plan)[0], logits_of(plain, plan)[0]
        assert torch.equal(ours[:first], theirs[:first])
        differs = (ours != theirs).any(1)[first:]
        assert bool(differs.all())
        changed_any |= bool(differs.any())
    assert changed_any


def test_an_unrouted_adapter_acts_on_every_slot(omni_folder):
    plain, adapted = model_with(omni_folder), model_with(omni_folder, a={"type": "lora"})
    stir(adapted, "a")
    plan = plain.planner.plan(SAMPLES[1])
    assert bool((logits_of(adapted, plan)[0] != logits_of(plain, plan)[0]).any(1).all())


def test_the_update_is_alpha_over_rank_times_two_matrices():
    part = LowRank(6, 4, rank=2, scale=8 / 2)
    with torch.no_grad():
        part.up.normal_()
    x = torch.randn(3, 6)
    torch.testing.assert_close(part(x, None), x @ (4 * part.up @ part.down).T)


def test_a_routed_update_needs_the_route_of_every_slot():
    part = LowRank(6, 4, 2, 1.0, Where("a", (1,), "slot"))
    two = torch.zeros(1, 2, dtype=torch.long)
    for facts in (None, SlotFacts(two, two, two)):
        with pytest.raises(ConfigError, match="route"):
            part(torch.randn(1, 3, 6), facts)


def test_adapters_are_components_of_their_own(omni_folder):
    model = model_with(omni_folder, a={"type": "lora", "targets": ["*.q_proj"]}, b={"type": "lora", "rank": 3})
    components = model.components()
    assert len(components["a"]) == 2 * 2 and len(components["b"]) == 2 * 2 * 7
    assert all(".adapters." not in name for name in components["backbone"])
    assert set(model.train_only(["a"])) == {f"a.{name}" for name in components["a"]}


def test_weights_stay_float32_over_a_bfloat16_model(omni_folder):
    backbone = {**example_values()["backbone"], "dtype": "bfloat16"}
    model = compose(config_of(omni_folder, backbone=backbone), base=omni_folder)
    assert {value.dtype for value in model.components()["lora"].values()} == {torch.float32}
    assert {value.dtype for value in model.components()["backbone"].values()} == {torch.bfloat16}
    assert model.hidden(model.planner.plan(SAMPLES[1])).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"targets": ["*.qq_proj"]}, "matches no linear layer"),
        ({"routes": ["imagge"]}, "routed to 'imagge'. Did you mean 'image'"),
        ({"rank": 0}, "rank is 0"),
        ({"targets": []}, "without `targets`"),
        ({"when": "turn", "routes": ["image"]}, r"'when' is 'turn'.*'slot', 'document'"),
        ({"when": "document"}, "every document holds text"),
        ({"merged": {}}, "names no branch"),
    ],
    ids=str,
)
def test_an_adapter_that_means_nothing_is_refused(omni_folder, spec, message):
    with pytest.raises(ConfigError, match=message):
        model_with(omni_folder, a={"type": "lora", **spec})


def test_options_are_stored_under_their_own_names():
    part = LoRA(rank=3, alpha=2.0, targets=("*.q",), routes=["text"])
    assert (part.rank, part.alpha, part.targets, part.routes) == (3, 2.0, ["*.q"], ["text"])


def differing(ours, theirs):
    return (ours != theirs).any(1)


def test_an_adapter_of_documents_acts_on_all_slots_of_those_that_hold_its_input(omni_folder):
    spec = {"type": "lora", "routes": ["image"], "when": "document"}
    plain, adapted = model_with(omni_folder), model_with(omni_folder, a=spec)
    stir(adapted, "a")
    with_image = asked(Text("before"), media("image", 1), name="i")
    others = [asked(Text("plain"), name="t"), asked(media("sound", 1), name="s"), asked(drawing(2), name="d")]
    plans = [plain.planner.plan(sample) for sample in (with_image, *others)]
    for batch in (Plan.stack(plans), Plan.pack(plans, 200)):
        ours, theirs = logits_of(adapted, batch), logits_of(plain, batch)
        names = sorted(batch.samples)
        for name, mine, stock in zip(names, ours, theirs, strict=True):
            assert bool(differing(mine, stock).all()) == (name == "i") == bool(differing(mine, stock).any())


def test_an_adapter_of_documents_stays_on_while_they_are_answered(omni_folder):
    spec = {"type": "lora", "routes": ["image"], "when": "document"}
    model = model_with(omni_folder, a=spec)
    stir(model, "a")
    samples = [asked(media("image", 1), Text("what is it"), name="i"), asked(Text("plain"), name="t")]
    plans = [model.planner.plan(sample, ask=True) for sample in samples]
    assert decoded(model, Plan.stack(plans), [7, 8, 9]) <= 1e-4


def test_merged_branches_are_added_with_their_coefficients(omni_folder):
    halves = {"a": 0.5, "b": 0.25}
    part = Merged({name: LowRank(6, 4, 2, 3.0) for name in halves}, halves)
    for branch in part.branches.values():
        torch.nn.init.normal_(branch.up)
    x = torch.randn(5, 6)
    torch.testing.assert_close(part(x, None), 0.5 * part.branches["a"](x, None) + 0.25 * part.branches["b"](x, None))
    model = model_with(omni_folder, m={"type": "lora", "targets": ["*.q_proj"], "merged": halves})
    assert {name.split("branches.")[1] for name in model.components()["m"]} == {"a.down", "a.up", "b.down", "b.up"}


def test_one_branch_of_coefficient_one_is_the_plain_adapter_bit_for_bit(omni_folder):
    plain = model_with(omni_folder, a={"type": "lora"})
    merged = model_with(omni_folder, a={"type": "lora", "merged": {"only": 1.0}})
    stir(plain, "a"), stir(merged, "a")
    plan = plain.planner.plan(SAMPLES[1])
    assert torch.equal(logits_of(plain, plan)[0], logits_of(merged, plan)[0])


def test_a_layer_that_runs_again_for_its_gradient_routes_as_it_did(omni_folder):
    grads = []
    for again in (False, True):
        backbone = {**example_values()["backbone"], "gradient_checkpointing": again}
        config = config_of(omni_folder, backbone=backbone, adapters={"a": {"type": "lora", "routes": ["image"]}})
        model = compose(config, base=omni_folder)
        stir(model, "a")
        trained = model.train_only(["a"])
        model.hidden(model.planner.plan(SAMPLES[1])).sum().backward()
        grads.append({name: value.grad for name, value in trained.items()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-5, rtol=1e-4)


def test_layers_that_flatten_their_slots_are_routed_too():
    part = LowRank(6, 4, 2, 1.0, Where("a", (1,), "slot"))
    torch.nn.init.normal_(part.up)
    route = torch.tensor([[0, 1, 0], [1, 0, 0]])
    x = torch.randn(2, 3, 6)
    facts = SlotFacts(route, route, route)
    assert torch.equal(part(x.flatten(0, 1), facts), part(x, facts).flatten(0, 1))


def test_norms_and_biases_are_tuned_by_selecting_them_of_the_language_model(omni_folder):
    """What others call bias and norm tuning needs no adapter: globs over the backbone's own names choose it."""
    model = model_with(omni_folder)
    chosen = model.train_only(["backbone.*norm*"])
    assert len(chosen) == 2 * 2 + 1 and all(name.endswith("norm.weight") for name in chosen)
    model.hidden(model.planner.plan(SAMPLES[0])).square().mean().backward()
    assert all(value.grad is not None for value in chosen.values())
