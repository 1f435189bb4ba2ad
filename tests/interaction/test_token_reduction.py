"""Fewer slots of media from layer to layer: which ones stay, and that nobody reads the others."""

from __future__ import annotations

import pytest
import torch

from omniloom.errors import ConfigError
from omniloom.interaction.base import Moment, SlotFacts
from omniloom.interaction.token_reduction import RankedSlots, Reduction
from omniloom.sequence import Text
from omniloom.testing.doubles import tiny_language_model
from tests.examples import answered, asked, logits_of, media, write_example
from tests.interaction.laws import assert_decoding, model_with, plain_model, reloaded, together

SPEC = {"type": "token_reduction", "layers": [0, 1], "keep": 0.5, "least": 1}
SAMPLES = [
    asked(Text("plain")),
    asked(Text("see"), media("image", 1), Text("and"), media("sound", 1), Text("both?")),
    answered((Text("ab"), media("image", 2), Text("cd"), media("image", 3), Text("what")), Text("two")),
    asked(media("motion", 2)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The example with a layer more, so that there is one behind two reductions."""
    path = write_example(tmp_path_factory.mktemp("reduced"))
    tiny_language_model(path / "language-model", layers=3)
    return path


def facts_of(document, **sides):
    document = torch.tensor(document)
    slot = torch.arange(document.shape[1]).expand(document.shape)
    return SlotFacts(torch.zeros_like(document), document, slot, sides=sides)


def test_the_slots_that_the_question_attends_to_most_stay():
    """One head; slots 0 to 3 are context, 4 asks; its scores are 1, 3, 2, 0 and 5 for itself."""
    query, key = torch.zeros(1, 1, 5, 2), torch.zeros(1, 1, 5, 2)
    query[0, 0, 4] = torch.tensor([1.0, 0.0])
    key[0, 0, :, 0] = torch.tensor([1.0, 3.0, 2.0, 0.0, 5.0])
    context = torch.tensor([[True, True, True, True, False]])
    found = Reduction(context, ~context)
    RankedSlots("a", 0, 0.5, 1)(query, key, facts_of([[0] * 5], a=found))
    assert found.hidden[0].tolist() == [[True, False, False, True, False]]
    assert found.at(0) is None and found.at(1) is found.hidden[0]
    RankedSlots("a", 2, 0.5, 1)(query, key, facts_of([[0] * 5], a=found))
    assert found.hidden[2].tolist() == [[True, False, True, True, False]]


@pytest.mark.parametrize(("keep", "least", "stay"), [(0.5, 1, 2), (0.1, 3, 3), (0.3, 1, 2), (1.0, 1, 4), (0.1, 9, 4)])
def test_a_share_stays_and_at_least_so_many(keep, least, stay):
    query, key = torch.randn(1, 2, 5, 2), torch.randn(1, 1, 5, 2)
    context = torch.tensor([[True, True, True, True, False]])
    found = Reduction(context, ~context)
    RankedSlots("a", 0, keep, least)(query, key, facts_of([[0] * 5], a=found))
    assert int((context & ~found.hidden[0]).sum()) == stay


def test_attention_is_the_mean_over_heads_and_over_the_slots_of_the_question_none_sees_what_follows():
    query, key = torch.randn(4, 6, 8), torch.randn(2, 6, 8)
    asking, read = torch.tensor([3, 5]), torch.tensor([0, 1, 3, 4, 5])
    paid = RankedSlots._paid(query, key, asking, read)
    expected = torch.zeros(6)
    for head in range(4):
        for slot in (3, 5):
            seen = [place for place in read.tolist() if place <= slot]
            expected[seen] += (key[head // 2, seen] @ query[head, slot]).softmax(0) / 8
    torch.testing.assert_close(paid, expected)


@torch.no_grad()
def test_the_question_is_the_text_behind_the_media_or_the_last_slot(folder):
    model = model_with(folder, a=SPEC)

    def asking(sample):
        plan = model.planner.plan(sample, ask=True)
        given, _ = model.media(plan)
        found = model.adapters["a"].prepare(Moment(plan, model.embed(plan), given))
        return plan, found

    plan, found = asking(SAMPLES[1])
    last = int((plan.kind[0] == 3).nonzero().max())
    expected = [slot > last and int(plan.kind[0, slot]) == 1 for slot in range(plan.shape[1])]
    assert found.asking[0].tolist() == expected and torch.equal(found.context, plan.kind == 3)
    assert asking(SAMPLES[0])[1] is None


def test_slots_that_are_left_out_are_felt_by_nobody_behind_the_layer(folder):
    """Their hidden states behind the last reduction can be anything."""
    model = model_with(folder, a={**SPEC, "layers": [1]})
    plan = model.planner.plan(SAMPLES[1])
    plain = plain_model(folder)
    assert not torch.equal(logits_of(model, plan)[0], logits_of(plain, plan)[0])
    with torch.no_grad():
        done = model.run(plan)
        hidden = done.facts.sides["a"].at(2)[0]
        assert 0 < int(hidden.sum()) < int((plan.kind == 3).sum())
        layer = model.backbone.layers[2]
        layer.register_forward_pre_hook(lambda part, args: (torch.where(hidden[None, :, None], 9.0, args[0]),))
        again = model.run(plan)
    assert torch.equal(done.hidden[0, ~hidden], again.hidden[0, ~hidden])


def test_what_keeps_everything_changes_nothing_bit_for_bit_and_gradients_see_the_whole(folder):
    plain, whole = plain_model(folder), model_with(folder, a={**SPEC, "least": 99})
    half = model_with(folder, a=SPEC)
    for sample in SAMPLES:
        plan = plain.planner.plan(sample)
        assert torch.equal(logits_of(whole, plan)[0], logits_of(plain, plan)[0])
    plan = plain.planner.plan(SAMPLES[2])
    with torch.enable_grad():
        assert torch.equal(half.hidden(plan), plain.hidden(plan))


def test_padded_and_packed_batches_are_what_their_samples_are_alone(folder):
    model = model_with(folder, a=SPEC)
    assert together(model, SAMPLES) <= 1e-4
    assert together(model, SAMPLES[::-1], 120) <= 1e-4


def test_answers_read_the_slots_that_their_question_chose(folder):
    model = model_with(folder, a=SPEC)
    assert_decoding(model, SAMPLES)


def test_it_is_saved_as_an_option_without_weights_and_runs_in_bfloat16(folder, tmp_path):
    model = model_with(folder, a=SPEC)
    assert not model.components()["a"]
    plan = model.planner.plan(SAMPLES[1])
    assert torch.equal(logits_of(reloaded(model, folder, tmp_path, a=SPEC), plan)[0], logits_of(model, plan)[0])
    half = model_with(folder, backbone={"dtype": "bfloat16"}, a=SPEC)
    assert bool(logits_of(half, plan)[0].isfinite().all())


def test_only_media_of_the_modalities_named_are_left_out(folder):
    model = model_with(folder, a={**SPEC, "modalities": ["sound"]})
    plan = model.planner.plan(SAMPLES[1])
    with torch.no_grad():
        found = model.run(plan).facts.sides["a"]
    assert torch.equal(found.context, (plan.kind == 3) & (plan.route == 2))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"keep": 0.0}, "0 < keep <= 1"),
        ({"least": 0}, "a least of at least 1"),
        ({"layers": []}, "acts in no layer"),
        ({"modalities": ["imagge"]}, "routed to 'imagge'"),
    ],
    ids=str,
)
def test_a_reduction_that_means_nothing_is_refused(folder, spec, message):
    with pytest.raises(ConfigError, match=message):
        model_with(folder, a={**SPEC, **spec})
