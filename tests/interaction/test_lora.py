"""Low-rank adapters: nothing at first, then only where they are routed."""

from __future__ import annotations

import pytest
import torch

from omniloom.errors import ConfigError
from omniloom.interaction.lora import LoRA, LowRank
from omniloom.model import compose
from omniloom.sequence import Text
from tests.examples import asked, config_of, drawing, example_values, logits_of, media

SAMPLES = [
    asked(Text("plain")),
    asked(Text("see"), media("image", 1), Text("and"), media("sound", 1)),
    asked(drawing(2), Text("x")),
]


def model_with(folder, **adapters):
    return compose(config_of(folder, adapters=adapters), base=folder)


def stir(model, adapter, scale=0.5):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for component, _, value in model.named_component_parameters():
            if component == adapter:
                value.copy_(torch.randn(value.shape, generator=generator) * scale)


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
    part = LowRank(6, 4, rank=2, scale=8 / 2, routes=None)
    with torch.no_grad():
        part.up.normal_()
    x = torch.randn(3, 6)
    torch.testing.assert_close(part(x, None), x @ (4 * part.up @ part.down).T)


def test_a_routed_update_needs_the_route_of_every_slot():
    part = LowRank(6, 4, rank=2, scale=1.0, routes=[1])
    for route in (None, torch.zeros(2, dtype=torch.long)):
        with pytest.raises(ConfigError, match="route"):
            part(torch.randn(1, 3, 6), route)


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
    ],
    ids=str,
)
def test_an_adapter_that_means_nothing_is_refused(omni_folder, spec, message):
    with pytest.raises(ConfigError, match=message):
        model_with(omni_folder, a={"type": "lora", **spec})


def test_options_are_stored_under_their_own_names():
    part = LoRA(rank=3, alpha=2.0, targets=("*.q",), routes=["text"])
    assert (part.rank, part.alpha, part.targets, part.routes) == (3, 2.0, ["*.q"], ["text"])
