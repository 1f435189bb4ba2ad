"""Fewer slots of media from layer to layer: which ones stay, and that answers are those of a mask over the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from omniloom.backbone.hooking import HookableLayers
from omniloom.errors import ConfigError
from omniloom.interaction.base import Moment, SlotFacts
from omniloom.interaction.token_reduction import RankedSlots, Reduction
from omniloom.model import Sampling, generate
from omniloom.sequence import Plan, Text
from omniloom.testing.doubles import tiny_language_model
from tests.backbone.test_causal_lm import saved
from tests.examples import answered, asked, example_values, logits_of, media, write_example
from tests.interaction.laws import assert_decoding, decoded, model_with, plain_model, reloaded, stir, together
from tests.interaction.test_taps import modalities_of, write_tower

SPEC = {"type": "token_reduction", "layers": [0, 1], "keep": 0.5, "least": 1}
SAMPLES = [
    asked(Text("plain")),
    asked(Text("see"), media("image", 1), Text("and"), media("sound", 1), Text("both?")),
    answered((Text("ab"), media("image", 2), Text("cd"), media("image", 3), Text("what")), Text("two")),
    asked(media("motion", 2)),
]
KINDS = ["llama", "qwen3", "gemma3", "gpt_oss, eager"]  # the last two have windows of four slots in some layers
BESIDE = {
    "lora": {"rank": 2, "routes": ["image"]},
    "lora of documents": {"type": "lora", "rank": 2, "routes": ["image"], "when": "document"},
    "lora_experts": {"experts": 3, "rank": 2},
    "bias": {},
    "prompt": {"length": 2, "layers": "all"},
    "gated_attention": {"inputs": ["image"]},
    "cross_attention": {"inputs": ["image"], "every": 1, "heads": 4},
    "moe_ffn": {"experts": 2, "route": {"image": [1]}},
    "deepstack": {"inputs": ["image"], "taps": {0: 0, 1: 1, 2: 2}},
    "token_injection": {"inputs": ["image"], "taps": {2: 2}},
}


class ReadSlots(nn.Module):
    """The reference: what is left out runs on, and no slot but itself reads it."""

    def __init__(self, kept):
        super().__init__()
        self.kept = kept

    def forward(self, slots, keys, facts):
        runs = self.kept(facts)
        if runs is None:
            return None
        read = nn.functional.pad(runs, (0, keys - runs.shape[1]), value=True)[:, None]
        return (read if facts.is_step else read | torch.eye(slots, dtype=torch.bool))[:, None]


class RankedRead(nn.Module):
    """The reference: only what is read is ranked."""

    def __init__(self, ranked):
        super().__init__()
        self.ranked = ranked

    def forward(self, query, key, facts):
        found = facts.sides.get(self.ranked.name)
        hidden = None if found is None or facts.is_step else found.at(self.ranked.layer)
        if hidden is not None:
            facts = replace(facts, document=torch.where(hidden, -1, facts.document))
        self.ranked(query, key, facts)


def masked_with(folder, **options):
    """A model whose slots of media are not removed but masked."""
    visible, scores = HookableLayers.hook_visible, HookableLayers.hook_scores
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            HookableLayers, "hook_kept", lambda lm, at, name, hook, told: visible(lm, at, name, ReadSlots(hook), told)
        )
        patch.setattr(
            HookableLayers, "hook_scores", lambda lm, at, name, hook, told: scores(lm, at, name, RankedRead(hook), told)
        )
        return model_with(folder, **options)


@torch.no_grad()
def assert_same(ours, theirs, plan):
    """The same is left out, and every slot that stays has the same logits."""
    done, expected = ours.run(plan), theirs.run(plan)
    found = [side.hidden for side in (done.facts.sides["a"], expected.facts.sides["a"])]
    assert found[0].keys() == found[1].keys() and bool(any(hidden.any() for hidden in found[0].values()))
    assert all(torch.equal(found[0][layer], found[1][layer]) for layer in found[0])
    stays = (plan.document >= 0) & ~done.facts.sides["a"].at(99)
    logits = [model.logits(hidden[stays]) for model, hidden in ((ours, done.hidden), (theirs, expected.hidden))]
    torch.testing.assert_close(*logits, atol=1e-4, rtol=1e-5)


def plans_of(model, *, ask=False):
    """Each sample's plan, or its question's."""
    if not ask:
        return [model.planner.plan(sample) for sample in SAMPLES]
    return [
        model.planner.plan(asked(*sample.turns[0].parts, name=str(n)), ask=True) for n, sample in enumerate(SAMPLES)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The example with a layer more, so that there is one behind two reductions."""
    path = write_example(tmp_path_factory.mktemp("reduced"))
    tiny_language_model(path / "language-model", layers=3)
    write_tower(path)
    return path


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """(a model that is reduced, one whose slots are masked), over another language model."""
    path = write_example(tmp_path_factory.mktemp("kind"))
    saved(path / "language-model", request.param)
    return model_with(path, a=SPEC), masked_with(path, a=SPEC)


@torch.no_grad()
def test_slots_that_stay_get_what_a_mask_over_the_others_gives_them(pair):
    ours, theirs = pair
    plans = plans_of(theirs)
    for plan in (plans[1], plans[2], Plan.stack(plans), Plan.pack(plans, 120)):
        assert_same(ours, theirs, plan)


def test_answers_are_those_of_a_mask_and_steps_those_of_a_whole_pass(pair):
    ours, theirs = pair
    plans = plans_of(ours, ask=True)
    assert decoded(ours, Plan.stack(plans), [7, 8, 9]) <= 1e-4
    said = [reply.ids for reply in generate(theirs, plans, Sampling(max_new=8))]
    assert [reply.ids for reply in generate(ours, plans, Sampling(max_new=8))] == said
    assert [generate(ours, [plan], Sampling(max_new=8))[0].ids for plan in plans] == said


@torch.no_grad()
def test_later_layers_run_fewer_slots_and_their_cache_holds_fewer_keys(pair):
    ours = pair[0]
    plan = Plan.stack(plans_of(ours, ask=True))
    ran = []
    hooks = [
        layer.register_forward_pre_hook(lambda part, args: ran.append(args[0].shape[1]))
        for layer in ours.backbone.layers
    ]
    caches = [model.backbone.new_cache() for model in pair]
    done, _ = (model.run(plan, cache=cache) for model, cache in zip(pair, caches, strict=True))
    for hook in hooks:
        hook.remove()
    sides = done.facts.sides["a"]
    stay = [int(((plan.document >= 0) & ~sides.hidden[layer]).sum(1).max()) for layer in (0, 1)]
    assert stay[1] < stay[0] < plan.shape[1]
    lengths = [[layer.keys.shape[-2] for layer in cache.layers] for cache in caches]
    assert lengths == [[plan.shape[1], *stay], [plan.shape[1]] * 3] and ran == lengths[0]


@pytest.mark.parametrize("name", BESIDE)
def test_other_adapters_of_narrowed_layers_meet_the_right_slots(name, folder):
    spec = {"type": name, **BESIDE[name]}
    rows = modalities_of(spec) if "taps" in spec else {}
    ours, theirs = (make(folder, modalities=rows, a=SPEC, b=spec) for make in (model_with, masked_with))
    plans = plans_of(ours)
    new = logits_of(ours, plans[2])[0]
    for model in (ours, theirs):
        stir(model, "b")
    assert not torch.equal(logits_of(ours, plans[2])[0], new)
    for plan in (Plan.stack(plans), Plan.pack(plans, 120)):
        assert_same(ours, theirs, plan)
    assert decoded(ours, Plan.stack(plans_of(ours, ask=True)), [7, 8, 9]) <= 1e-4


def test_two_reductions_keep_what_both_keep(folder):
    both = model_with(folder, a={**SPEC, "modalities": ["image"]}, b={**SPEC, "layers": [1], "modalities": ["sound"]})
    assert_decoding(both, SAMPLES)
    cache, plan = both.backbone.new_cache(), both.planner.plan(SAMPLES[1], ask=True)
    with torch.no_grad():
        sides = both.run(plan, cache=cache).facts.sides
    gone = [int(sides[name].hidden[1].sum()) for name in ("a", "b")]
    assert all(gone) and cache.layers[2].keys.shape[-2] == plan.shape[1] - sum(gone)


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
    left = [1, 2, 4]  # of the slots that still run, the others have no place any more
    facts = replace(facts_of([[0] * 3], a=found), slot=torch.tensor([left]))
    RankedSlots("a", 2, 0.5, 1)(query[:, :, left], key[:, :, left], facts)
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


@torch.no_grad()
def test_slots_that_are_left_out_are_as_they_were_at_the_border(folder):
    model = model_with(folder, a={**SPEC, "layers": [1]})
    plan = model.planner.plan(SAMPLES[1])
    seen = []
    layer = model.backbone.layers[1]
    layer.register_forward_hook(lambda part, args, output: seen.append(output))
    done = model.run(plan)
    hidden = done.facts.sides["a"].at(2)
    assert 0 < int(hidden.sum()) < int((plan.kind == 3).sum())
    torch.testing.assert_close(done.hidden[hidden], model.backbone.lm.model.norm(seen[0])[hidden])


@torch.no_grad()
def test_the_slot_behind_which_the_answer_begins_stays_even_if_it_is_of_media(folder):
    rows = {"motion": {**example_values()["modalities"]["motion"], "markers": ["", ""]}}
    model = model_with(folder, backbone={"template": "bare"}, modalities=rows, a={**SPEC, "keep": 0.01})
    plan = model.planner.plan(asked(media("motion", 3)), ask=True)
    assert int(plan.kind[0, -1]) == 3
    hidden = model.run(plan).facts.sides["a"].at(2)
    assert int(hidden.sum()) == plan.shape[1] - 2 and not bool(hidden[0, -1])


def test_what_keeps_everything_changes_nothing_bit_for_bit_and_gradients_see_the_whole(folder):
    plain, half = plain_model(folder), model_with(folder, a=SPEC)
    for spec in ({"least": 99}, {"keep": 1.0}):
        whole = model_with(folder, a={**SPEC, **spec})
        for plan in [*plans_of(plain), Plan.stack(plans_of(plain)), Plan.pack(plans_of(plain), 120)]:
            for ours, theirs in zip(logits_of(whole, plan), logits_of(plain, plan), strict=True):
                assert torch.equal(ours, theirs)
    plan, cache = plain.planner.plan(SAMPLES[2]), half.backbone.new_cache()
    with torch.enable_grad():
        assert torch.equal(half.hidden(plan, cache=cache), plain.hidden(plan))
    assert {layer.keys.shape[-2] for layer in cache.layers} == {plan.shape[1]}


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
