"""Biases at linear layers: nothing at first, one row for every slot then."""

from __future__ import annotations

import torch
from torch import nn

from omniloom.interaction.bias import AddedBias
from omniloom.sequence import Plan, Text
from tests.examples import answered, asked, logits_of, media
from tests.interaction.laws import decoded, model_with, reloaded, stir, together

SPEC = {"type": "bias", "targets": ["*.q_proj", "*.down_proj"]}
SAMPLES = [asked(Text("plain")), answered((Text("see"), media("image", 1)), Text("yes"))]


def test_a_new_adapter_changes_nothing_bit_for_bit_and_has_one_row_a_layer(omni_folder):
    plain, adapted = model_with(omni_folder), model_with(omni_folder, a=SPEC)
    assert [tuple(value.shape) for value in adapted.components()["a"].values()] == [(32,)] * 4
    for sample in SAMPLES:
        plan = plain.planner.plan(sample)
        assert torch.equal(logits_of(plain, plan)[0], logits_of(adapted, plan)[0])


def test_it_is_the_bias_of_a_linear_layer(omni_folder):
    model = model_with(omni_folder, a=SPEC)
    stir(model, "a")
    layer = model.backbone.get_submodule("lm.model.layers.0.self_attn.q_proj")
    whole = nn.Linear(32, 32)
    whole.weight, whole.bias = layer.base.weight, layer.adapters["a"].bias
    x = torch.randn(2, 3, 32)
    torch.testing.assert_close(layer(x), whole(x))
    assert AddedBias(3)(torch.zeros(2, 4, dtype=torch.bfloat16), None).dtype == torch.bfloat16


def test_the_laws_hold(omni_folder, tmp_path):
    model = model_with(omni_folder, a=SPEC)
    stir(model, "a")
    assert together(model, SAMPLES) <= 1e-4
    assert decoded(model, Plan.stack([model.planner.plan(asked(Text("a")), ask=True)]), [7, 8]) <= 1e-4
    loaded = reloaded(model, omni_folder, tmp_path, a=SPEC)
    plan = model.planner.plan(SAMPLES[1])
    assert torch.equal(logits_of(loaded, plan)[0], logits_of(model, plan)[0])
    trained = model.train_only(["a"])
    model.loss(plan)["text"][0].backward()
    assert all(bool(value.grad.any()) for value in trained.values())
