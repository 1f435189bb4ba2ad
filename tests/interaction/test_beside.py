"""Laws of interactions that read media beside the slots, over both of them, with and without slots for the media."""

from __future__ import annotations

import pytest
import torch

from omniloom.model import Sampling, generate
from omniloom.sequence import Plan, Text
from tests.examples import answered, asked, drawing, logits_of, media
from tests.interaction.laws import beside, decoded, gradients_of, model_with, plain_model, reloaded, stir, together

KINDS = {
    "gated": {"type": "gated_attention", "inputs": ["image", "sound"]},
    "gated, blocks": {
        "type": "gated_attention",
        "inputs": ["image", "sound"],
        "layers": {"image": [0], "sound": [1]},
    },
    "flamingo": {"type": "cross_attention", "inputs": ["image", "sound"], "every": 1, "heads": 4},
    "flamingo, every 2nd": {"type": "cross_attention", "inputs": ["image", "sound"], "every": 2, "ffn": 2},
    "moshivis": {
        "type": "cross_attention",
        "inputs": ["image", "sound"],
        "every": 1,
        "heads": 4,
        "ffn": 0,
        "shared": True,
        "gate": "token",
        "reads": "all",
    },
}
SAMPLES = [
    asked(Text("plain")),
    asked(Text("see"), media("image", 1), Text("and"), media("sound", 1), Text("both")),
    answered((Text("ab"), media("image", 2), Text("cd"), media("image", 3)), Text("two")),
    answered((media("motion", 1), Text("not read")), drawing(2)),
    asked(media("sound", 2), Text("x")),
]
BOTH = answered((media("image", 1), media("sound", 1)), Text("yes"))


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture(scope="module", params=["slots", "side"])
def modalities(request):
    """The example's modalities; images and sounds fill slots, or none."""
    return {} if request.param == "slots" else beside("image", "sound")


def questions(model):
    samples = [asked(*sample.turns[0].parts, name=str(number)) for number, sample in enumerate(SAMPLES)]
    return [model.planner.plan(sample, ask=True) for sample in samples]


@pytest.fixture(scope="module")
def adapted(omni_folder, kind, modalities):
    model = model_with(omni_folder, modalities=modalities, a=kind)
    stir(model, "a")
    return model


def test_a_new_adapter_changes_nothing_bit_for_bit(omni_folder, kind, modalities):
    plain = plain_model(omni_folder, modalities=modalities)
    adapted = model_with(omni_folder, modalities=modalities, a=kind)
    assert sum(value.numel() for value in adapted.components()["a"].values()) > 0
    for sample in SAMPLES:
        plan = plain.planner.plan(sample)
        assert torch.equal(logits_of(plain, plan)[0], logits_of(adapted, plan)[0])


def test_only_slots_that_may_see_an_item_feel_it(omni_folder, kind, modalities, adapted):
    plain = plain_model(omni_folder, modalities=modalities)
    for sample in SAMPLES:
        plan = plain.planner.plan(sample)
        read = [item.start for item in plan.items if item.modality in kind["inputs"]]
        first = min(read) if read else plan.shape[1]
        ours, theirs = logits_of(adapted, plan)[0], logits_of(plain, plan)[0]
        assert torch.equal(ours[:first], theirs[:first])
        assert bool((ours != theirs).any(1)[first:].all())


def test_an_item_beside_is_felt_by_its_content(modalities, adapted):
    def said(seed):
        return logits_of(adapted, adapted.planner.plan(asked(Text("a"), media("image", seed), Text("b"))))[0]

    ours, theirs = said(1), said(3)
    start = adapted.planner.plan(asked(Text("a"), media("image", 1))).items[0].start
    assert torch.equal(ours[:start], theirs[:start]) and bool((ours != theirs).any(1)[start:].all())


def test_padded_and_packed_batches_are_what_their_samples_are_alone(adapted):
    assert together(adapted, SAMPLES) <= 1e-4
    assert together(adapted, SAMPLES[::-1], 100) <= 1e-4


def test_decoding_with_the_cache_is_the_whole_pass_again(adapted):
    plans = questions(adapted)
    assert decoded(adapted, Plan.stack(plans), [7, 8, 9]) <= 1e-4
    replies = generate(adapted, plans, Sampling(max_new=5))
    assert [reply.ids for reply in replies] == [generate(adapted, [plan], Sampling(max_new=5))[0].ids for plan in plans]


def test_gradients_reach_every_parameter_of_the_adapter_and_none_beside(adapted):
    grads = gradients_of(adapted, "a", adapted.planner.plan(BOTH))
    assert all(grad is not None and bool(grad.any()) for grad in grads.values())


def test_gradients_are_the_same_when_layers_run_again(omni_folder, kind, modalities):
    grads = []
    for again in (False, True):
        model = model_with(omni_folder, backbone={"gradient_checkpointing": again}, modalities=modalities, a=kind)
        stir(model, "a")
        trained = model.train_only(["a", "image/projector"])
        plans = [model.planner.plan(sample) for sample in (SAMPLES[2], BOTH)]
        model.loss(Plan.pack(plans, 200))["text"][0].backward()
        grads.append({name: value.grad for name, value in trained.items()})
    assert all(bool(grad.any()) for grad in grads[0].values())
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-4, rtol=1e-3)


def test_a_saved_adapter_gives_the_same_logits_bit_for_bit(omni_folder, tmp_path, kind, modalities, adapted):
    loaded = reloaded(adapted, omni_folder, tmp_path, modalities=modalities, a=kind)
    plan = Plan.stack([adapted.planner.plan(sample) for sample in SAMPLES])
    assert all(torch.equal(*pair) for pair in zip(logits_of(loaded, plan), logits_of(adapted, plan), strict=True))


def test_it_runs_over_a_bfloat16_language_model_with_weights_of_its_own_in_float32(omni_folder, kind, modalities):
    model = model_with(omni_folder, backbone={"dtype": "bfloat16"}, modalities=modalities, a=kind)
    stir(model, "a")
    assert {value.dtype for value in model.components()["a"].values()} == {torch.float32}
    hidden = model.hidden(Plan.stack([model.planner.plan(sample) for sample in SAMPLES]))
    assert hidden.dtype == torch.bfloat16 and bool(hidden.isfinite().all())
    model.to(torch.bfloat16).hidden(Plan.stack([model.planner.plan(SAMPLES[1])]))


def test_laws_hold_to_the_last_digit_over_a_float64_model(omni_folder, kind, modalities):
    model = clean_model_with(omni_folder, kind, modalities)
    assert together(model, SAMPLES) <= 1e-9
    assert decoded(model, Plan.stack(questions(model)), [7, 8, 9]) <= 1e-9


def clean_model_with(folder, kind, modalities):
    from omniloom.registry import build
    from tests.examples import clean_model

    stock = model_with(folder, modalities=modalities)
    model = clean_model(stock, adapters={"a": build("interaction", kind)})
    stir(model, "a")
    return model
