"""An encoder-decoder composed from a run file with media, codes and adapters: the laws of the others hold for it."""

from __future__ import annotations

import pytest
import torch
import yaml

from omniloom.checkpoint import load_model, save_model
from omniloom.config import load_run
from omniloom.errors import ConfigError
from omniloom.model import Sampling, compose, generate
from omniloom.sequence import IGNORE, Kind, Plan, Sample, Text
from omniloom.testing.doubles import tiny_encoder_decoder
from tests.examples import answered, asked, drawing, example_values, largest, logits_of, media, plans_of
from tests.interaction.laws import decoded

BACKBONE = {"type": "seq2seq_lm", "id": "./language-model", "template": "plain"}
EVERYTHING = [
    answered((media("image"), Text("what?")), Text("a cat")),
    answered((Text("first"), media("sound", 2), Text("then"), media("image", 1), media("points", 3)), Text("both")),
    answered((Text("draw"),), Text("here:"), drawing(1), Text("done")),
    Sample("s", (*answered((media("points"),), drawing()).turns, *answered((media("image"),), Text("x")).turns)),
    asked(media("motion", 3), Text("nobody answers")),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the language model."""
    made = tmp_path_factory.mktemp("seq2seq")
    tiny_encoder_decoder(made / "language-model")
    return made


def config_of(folder, **changes):
    values = {**example_values(), "backbone": BACKBONE, "adapters": {}, **changes}
    (folder / "run.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return load_run(folder / "run.yaml").config


def model_of(folder, **changes):
    model = compose(config_of(folder, **changes), base=folder)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for component, _, value in model.named_component_parameters():
            if component in ("vocab", *model.adapters):
                value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
    return model


@pytest.fixture(scope="module")
def model(folder):
    return model_of(folder)


def test_samples_are_the_same_alone_padded_and_packed(model):
    plans = plans_of(model, EVERYTHING)
    alone = [logits_of(model, plan)[0] for plan in plans]
    packed = Plan.pack(plans, 200)
    assert packed.is_packed
    for batch in (Plan.stack(plans), Plan.stack(plans[::-1]), packed):
        assert largest(logits_of(model, batch), alone) <= 1e-4
    sums = [sum(float(value) for value, _ in model.loss(plan).values()) for plan in plans]
    assert sum(float(value) for value, _ in model.loss(packed).values()) == pytest.approx(sum(sums), abs=1e-3)


def test_media_change_what_is_said_and_all_that_is_read(model):
    first, second = (model.planner.plan(answered((Text("a"), media("image", n), Text("b")), Text("c"))) for n in (1, 3))
    differs = (logits_of(model, first)[0] - logits_of(model, second)[0]).abs().amax(1)
    assert bool((differs > 0).all()) and set(first.stream[0].tolist()) == {0, 1}
    assert bool((first.stream[0][first.kind[0] == int(Kind.MEDIA)] == 1).all())


def test_decoding_by_the_cache_is_decoding_by_full_forwards(model):
    samples = [asked(media("image"), Text("what?")), asked(Text("a rather longer question"), media("sound", 2))]
    prompts = [model.planner.plan(sample, ask=True) for sample in samples]
    block = model.vocabulary.blocks["drawing"]
    assert decoded(model, Plan.stack(prompts), [20, block.begin, block.first + 3, block.end, 7]) <= 1e-4
    alone = [generate(model, [plan], Sampling(max_new=8))[0] for plan in prompts]
    assert generate(model, prompts, Sampling(max_new=8)) == alone


def test_a_code_answer_holds_a_payload(model):
    plan = model.planner.plan(asked(Text("draw"), media("image")), ask=True)
    (reply,) = generate(model, [plan], Sampling(max_new=6, required="drawing"))
    assert [part.modality for part in reply.parts] == ["drawing"]


def test_codes_begin_as_likely_as_an_average_word(folder):
    model = compose(config_of(folder), base=folder)
    plan = model.planner.plan(EVERYTHING[2])
    logits = logits_of(model, plan)[0][plan.label[0] != IGNORE]
    base = model.vocabulary.base_size
    torch.testing.assert_close(logits[:, base], logits[:, :base].mean(1), atol=1e-4, rtol=1e-4)


def test_a_repeated_batch_is_learned_and_only_what_trains_changes(folder):
    model = model_of(folder, adapters={"lora": {"type": "lora", "rank": 4, "targets": ["*.q", "*.v", "*.wo"]}})
    batch = Plan.stack(plans_of(model, EVERYTHING[:3]))
    trained = model.train_only(["image/*", "*/projector*", "vocab", "lora"])
    before = {name: value.clone() for name, value in model.backbone.named_parameters() if ".adapters." not in name}
    optimizer = torch.optim.Adam(trained.values(), lr=1e-2)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = model.losses(batch).total()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2
    assert all(torch.equal(value, dict(model.backbone.named_parameters())[name]) for name, value in before.items())


def test_gradients_reach_every_part_that_a_batch_uses(folder):
    model = model_of(folder)
    trained = model.train_only(["*/encoder", "*/projector*", "vocab"])
    model.losses(Plan.stack(plans_of(model, EVERYTHING))).total().backward()
    unread = {name for name, value in trained.items() if value.grad is None or not value.grad.any()}
    assert {name.split("/")[0] for name in unread} <= {"motion"}  # whose question nobody answers


def test_saved_and_loaded_it_is_bit_equal(folder, tmp_path):
    adapters = {"lora": {"type": "lora", "rank": 2, "targets": ["*.q", "*.wi_0"], "routes": ["image", "text"]}}
    config, model = config_of(folder, adapters=adapters), model_of(folder, adapters=adapters)
    tiny_encoder_decoder(tmp_path / "language-model")
    save_model(model, config, tmp_path, trained=list(model.components()))
    loaded = load_model(tmp_path)[0]
    for sample in EVERYTHING:
        plan = model.planner.plan(sample)
        assert torch.equal(logits_of(loaded, plan)[0], logits_of(model, plan)[0])


def test_rows_beside_the_slots_are_read_in_the_encoder(folder):
    rows = example_values()["modalities"]
    rows["sound"]["in"]["insert"] = "inject"
    reads = {"type": "cross_attention", "inputs": ["sound"], "every": 1}
    model = model_of(folder, modalities=rows, adapters={"reads": reads})
    plans = plans_of(model, EVERYTHING)
    alone = [logits_of(model, plan)[0] for plan in plans]
    for batch in (Plan.stack(plans), Plan.pack(plans, 200)):
        assert largest(logits_of(model, batch), alone) <= 1e-4
    heard, other = (model.planner.plan(answered((Text("a"), media("sound", n), Text("b")), Text("c"))) for n in (1, 4))
    assert bool((logits_of(model, heard)[0] != logits_of(model, other)[0]).any(1)[heard.stream[0] == 0].all())


def test_a_chat_template_that_is_not_there_is_named_with_the_remedy(folder):
    with pytest.raises(ConfigError, match="template: plain"):
        model_of(folder, backbone={**BACKBONE, "template": "chat"})
