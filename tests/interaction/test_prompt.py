"""Soft prompts: the words that stand there at first, learned rows then, the same however documents are put together."""

from __future__ import annotations

import pytest
import torch

from omniloom.errors import ConfigError
from omniloom.interaction.base import SlotFacts
from omniloom.interaction.prompt import Prompt, PromptRows
from omniloom.model import Sampling, generate
from omniloom.sequence import Plan, Text
from tests.examples import answered, asked, logits_of, media
from tests.interaction.laws import decoded, gradients_of, model_with, plain_model, reloaded, stir, together

KINDS = {"input": {"type": "prompt", "length": 3}, "deep": {"type": "prompt", "length": 3, "layers": "all"}}
SAMPLES = [asked(Text("plain")), answered((Text("see"), media("image", 1)), Text("yes")), asked(Text("a longer one"))]


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture(scope="module")
def adapted(omni_folder, kind):
    model = model_with(omni_folder, a=kind)
    stir(model, "a")
    return model


def test_a_new_prompt_changes_nothing_bit_for_bit(omni_folder, kind):
    plain, adapted = plain_model(omni_folder), model_with(omni_folder, a=kind)
    for sample in SAMPLES:
        plan = plain.planner.plan(sample)
        assert torch.equal(logits_of(plain, plan)[0], logits_of(adapted, plan)[0])


@torch.no_grad()
def test_the_first_slots_of_every_document_are_embedded_anew_and_no_others(omni_folder):
    model = model_with(omni_folder, a=KINDS["input"])
    stir(model, "a")
    plan = Plan.pack([model.planner.plan(sample) for sample in SAMPLES], 120)
    seen = []
    model.backbone.layers[0].register_forward_hook(lambda part, args, out: seen.append(args[0]))
    model.hidden(plan)
    rows = model.components()["a"]["lm.model.layers.0.adapters.a.before.rows"]
    expected = torch.zeros_like(seen[0])
    for number in range(len(plan.samples)):
        row, slot = (plan.document == number).nonzero()[0].tolist()
        expected[row, slot : slot + 3] = rows
    torch.testing.assert_close(seen[0] - model.embed(plan), expected, atol=1e-6, rtol=0)


def test_the_laws_hold(omni_folder, tmp_path, kind, adapted):
    assert together(adapted, SAMPLES) <= 1e-4
    plans = [adapted.planner.plan(asked(*sample.turns[0].parts), ask=True) for sample in SAMPLES]
    assert decoded(adapted, Plan.stack(plans), [7, 8, 9]) <= 1e-4
    replies = generate(adapted, plans, Sampling(max_new=4))
    assert [reply.ids for reply in replies] == [generate(adapted, [plan], Sampling(max_new=4))[0].ids for plan in plans]
    loaded = reloaded(adapted, omni_folder, tmp_path, a=kind)
    plan = adapted.planner.plan(SAMPLES[1])
    assert torch.equal(logits_of(loaded, plan)[0], logits_of(adapted, plan)[0])
    assert all(bool(grad.any(1).all()) for grad in gradients_of(adapted, "a", plan).values())


def test_it_runs_over_a_bfloat16_language_model(omni_folder, kind):
    model = model_with(omni_folder, backbone={"dtype": "bfloat16"}, a=kind)
    assert model.hidden(model.planner.plan(SAMPLES[1])).dtype == torch.bfloat16


def test_rows_follow_their_slots_where_only_some_of_a_plan_run():
    part = PromptRows("a", 2, 3)
    torch.nn.init.normal_(part.rows)
    rank = torch.tensor([[0, 1, 2, 3, 0, 1]])
    slot, document = torch.tensor([[1, 2, 4, 5, 0]]), torch.tensor([[0, 0, 1, 1, -1]])
    out = part(torch.zeros(1, 5, 3), SlotFacts(document, document, slot, sides={"a": rank}))
    zero = torch.zeros(3)
    assert torch.equal(out[0], torch.stack([part.rows[1], zero, part.rows[0], part.rows[1], zero]))


def test_a_prompt_of_no_slots_is_refused():
    with pytest.raises(ConfigError, match="length of at least 1"):
        Prompt(length=0)
