"""What every interaction of the part table owes: its spec back, a model without weights, files for what it learns."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from omniloom.model import compose
from omniloom.registry import BUILT_IN, build, spec_of
from omniloom.sequence import Item, Text
from tests.examples import answered, config_of, example_values, media, write_example

OPTIONS = {
    "lora": {"rank": 2, "routes": ["image"], "when": "document"},
    "lora_experts": {"experts": 3, "rank": 2},
    "bias": {"targets": ["*.q_proj"]},
    "prompt": {"length": 2, "layers": "all"},
    "gated_attention": {"inputs": ["image"], "layers": {"image": [1]}},
    "cross_attention": {"inputs": ["image"], "every": 1, "heads": 4, "shared": True, "gate": "token"},
    "deepstack": {"inputs": ["image"], "taps": {"0": 1}, "gated": True},
    "token_injection": {"inputs": ["touch"], "taps": {"1": "pooled"}},
    "token_reduction": {"layers": [0], "least": 1},
    "moe_ffn": {"experts": 2, "route": {"image": [1]}, "layers": [0]},
}
EACH = pytest.mark.parametrize("name", sorted(OPTIONS))
LEARNED = pytest.mark.parametrize("name", sorted(set(OPTIONS) - {"token_reduction"}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = write_example(tmp_path_factory.mktemp("interactions"))
    vision = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**vision, "vocab_size": 9}
    config = CLIPConfig(
        vision_config={**vision, "image_size": 16, "patch_size": 8}, text_config=text, projection_dim=12
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(path / "tower")
    return path


def config_with(folder, **adapters):
    rows = example_values()["modalities"]
    encoder = {"type": "hub_vision", "id": "./tower", "taps": [1]}
    row = {**rows["image"]["in"], "encoder": encoder, "projector": "linear"}
    pooled = {**row, "encoder": {**encoder, "taps": [], "tokens": "cls", "pooled": True}}
    modalities = {**rows, "image": {**rows["image"], "in": row}, "touch": {**rows["image"], "in": pooled}}
    modalities["touch"]["markers"] = ["", ""]
    return config_of(folder, adapters=adapters, modalities=modalities)


def test_every_interaction_of_the_part_table_is_held_to_it():
    assert set(OPTIONS) == set(BUILT_IN["interaction"])


@EACH
def test_a_spec_builds_a_part_that_gives_it_back(name):
    spec = {"type": name, **OPTIONS[name]}
    part = build("interaction", spec)
    whole = spec_of("interaction", part)
    assert {key: whole[key] for key in spec} == spec
    assert json.loads(json.dumps(whole)) == whole
    assert spec_of("interaction", build("interaction", whole)) == whole


@LEARNED
def test_a_model_with_it_is_built_without_weights(name, folder):
    spec = {"type": name, **OPTIONS[name]}
    with torch.device("meta"):
        model = compose(config_with(folder, a=spec), base=folder, weights=False)
    whole = compose(config_with(folder, a=spec), base=folder)
    sizes = [{key: value.shape for key, value in made.components()["a"].items()} for made in (model, whole)]
    assert sizes[0] == sizes[1] and sizes[0]
    assert {value.device.type for value in model.components()["a"].values()} == {"meta"}


@EACH
def test_the_same_seed_gives_the_same_weights_whatever_else_is_in_the_model(name, folder):
    spec = {"type": name, **OPTIONS[name]}
    first, second = (compose(config_with(folder, a=spec), base=folder) for _ in range(2))
    for key, value in first.components()["a"].items():
        assert torch.equal(value, second.components()["a"][key])


@LEARNED
def test_gradients_reach_whatever_it_has_that_its_options_let_be_reached(name, folder):
    model = compose(config_with(folder, a={"type": name, **OPTIONS[name]}), base=folder)
    generator = torch.Generator().manual_seed(0)
    trained = model.train_only(["a"])
    with torch.no_grad():
        for value in trained.values():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
    touch = Item("touch", media("image", 4).payload)
    plan = model.planner.plan(answered((media("image", 2), Text("what"), touch), Text("a long answer")))
    model.losses(plan).total().backward()
    assert all(value.grad is not None and bool(value.grad.any()) for value in trained.values())
