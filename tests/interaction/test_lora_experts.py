"""Low-rank experts: nothing at first, then those that the gate gives to a whole conversation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from omniloom.errors import ConfigError
from omniloom.interaction.base import Moment, SlotFacts
from omniloom.interaction.lora_experts import LoRAExperts, LowRankExperts, prompt_slots
from omniloom.sequence import Plan, Text
from tests.examples import answered, asked, drawing, logits_of, media
from tests.interaction.laws import assert_decoding, gradients_of, model_with, plain_model, reloaded, stir, together

SPEC = {"type": "lora_experts", "experts": 3, "rank": 2}
SAMPLES = [
    asked(Text("plain")),
    asked(Text("see"), media("image", 1), Text("and"), media("sound", 1), Text("both")),
    answered((Text("ab"), media("image", 2), Text("cd")), Text("two")),
    answered((media("motion", 1), Text("more")), drawing(2)),
]


@pytest.fixture(scope="module")
def adapted(omni_folder):
    model = model_with(omni_folder, a=SPEC)
    stir(model, "a", scale=0.3)
    return model


def test_a_new_adapter_changes_nothing_bit_for_bit(omni_folder):
    plain, adapted = plain_model(omni_folder), model_with(omni_folder, a=SPEC)
    for sample in SAMPLES:
        plan = plain.planner.plan(sample)
        assert torch.equal(logits_of(plain, plan)[0], logits_of(adapted, plan)[0])


def test_a_layer_adds_the_weighted_sum_of_the_experts_of_each_document():
    part = LowRankExperts("a", 6, 4, experts=3, rank=2, scale=0.5)
    nn.init.normal_(part.up)
    weights = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]])
    document = torch.tensor([[0, 1, -1], [1, 0, 0]])
    x, facts = torch.randn(2, 3, 6), SlotFacts(document, document, document, sides={"a": weights})
    out = part(x, facts)
    for row in range(2):
        for slot in range(3):
            number = int(document[row, slot])
            parts = [
                w * up @ down @ x[row, slot] for w, up, down in zip(weights[number], part.up, part.down, strict=True)
            ]
            expected = 0.5 * sum(parts) * (number >= 0)
            torch.testing.assert_close(out[row, slot], expected)
    torch.testing.assert_close(part(x.flatten(0, 1), facts), out.flatten(0, 1))


def test_without_a_plan_there_is_no_gate_and_none_is_guessed():
    part = LowRankExperts("a", 6, 4, experts=3, rank=2, scale=0.5)
    for facts in (None, SlotFacts(*[torch.zeros(1, 3, dtype=torch.long)] * 3)):
        with pytest.raises(ConfigError, match="need the plan's documents"):
            part(torch.randn(1, 3, 6), facts)


def test_the_prompt_ends_where_the_first_answer_begins(omni_folder):
    model = model_with(omni_folder)
    question = (Text("ab"), media("image", 2), Text("cd"))
    asking = model.planner.plan(asked(*question), ask=True)
    whole = model.planner.plan(answered(question, Text("two")))
    assert prompt_slots(whole)[0].tolist() == [True] * asking.shape[1] + [False] * (whole.shape[1] - asking.shape[1])
    plain = model.planner.plan(SAMPLES[0])
    assert bool(prompt_slots(plain).all())
    packed = Plan.pack([whole, plain, asking], 200)
    expected = {whole.samples[0]: prompt_slots(whole).sum()}
    assert int(prompt_slots(packed).sum()) == int(expected[whole.samples[0]]) + plain.shape[1] + asking.shape[1]
    assert not prompt_slots(Plan.stack([plain, whole]))[0, plain.shape[1] :].any()


@torch.no_grad()
def test_the_gate_takes_the_likeliest_of_the_mean_of_the_prompts_embeddings(adapted):
    plan = Plan.pack([adapted.planner.plan(sample) for sample in SAMPLES], 120)
    given, _ = adapted.media(plan)
    embeds = adapted.embed(plan)
    weights = adapted.adapters["a"].prepare(Moment(plan, embeds, given))
    asked_slots = prompt_slots(plan)
    for number in range(len(plan.samples)):
        mean = embeds[asked_slots & (plan.document == number)].mean(0)
        scores = adapted.backbone.adapters["a"](mean)
        top = scores.topk(2)
        expected = torch.zeros(3).scatter(0, top.indices, top.values.softmax(0))
        torch.testing.assert_close(weights[number], expected, atol=1e-5, rtol=1e-4)


def test_padded_and_packed_batches_are_what_their_samples_are_alone(adapted):
    assert together(adapted, SAMPLES) <= 1e-4


def test_decoding_takes_the_experts_of_the_prompt_as_training_does(adapted):
    assert_decoding(adapted, SAMPLES)


def test_gradients_reach_the_gate_and_every_expert_that_is_taken_and_nothing_beside(adapted):
    grads = gradients_of(adapted, "a", Plan.stack([adapted.planner.plan(sample) for sample in SAMPLES]))
    assert all(grad is not None and bool(grad.any()) for grad in grads.values())


def test_saved_experts_give_the_same_logits_bit_for_bit(omni_folder, tmp_path, adapted):
    loaded = reloaded(adapted, omni_folder, tmp_path, a=SPEC)
    plan = Plan.stack([adapted.planner.plan(sample) for sample in SAMPLES])
    assert all(torch.equal(*pair) for pair in zip(logits_of(loaded, plan), logits_of(adapted, plan), strict=True))


def test_weights_stay_float32_over_a_bfloat16_model(omni_folder):
    model = model_with(omni_folder, backbone={"dtype": "bfloat16"}, a=SPEC)
    assert {value.dtype for value in model.components()["a"].values()} == {torch.float32}
    assert model.hidden(model.planner.plan(SAMPLES[1])).dtype == torch.bfloat16


@pytest.mark.parametrize("spec", [{"rank": 0}, {"top_k": 5}, {"top_k": 0}], ids=str)
def test_counts_that_mean_nothing_are_refused(spec):
    with pytest.raises(ConfigError, match="1 <= top_k <= experts"):
        LoRAExperts(**spec)
