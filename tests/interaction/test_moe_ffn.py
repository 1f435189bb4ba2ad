"""Sparse experts: the dense model at first, then exactly the weighted sum of what each slot's experts give."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn

from omniloom.backbone.causal_lm import CausalLM
from omniloom.errors import ConfigError
from omniloom.interaction.base import HookContext, Site, SlotFacts
from omniloom.interaction.moe_ffn import MoEFFN, SparseExperts
from omniloom.interaction.routing import route_slots
from omniloom.sequence import Plan, Text
from omniloom.testing.doubles import tiny_tokenizer
from tests.backbone.test_causal_lm import _GPT2, _TINY, model_of, prompts_of
from tests.examples import answered, asked, drawing, largest, logits_of, media
from tests.interaction.laws import assert_decoding, model_with, plain_model, reloaded, stir, together

MOE = {"type": "moe_ffn", "experts": 3}
KINDS = {
    "top 2": MOE,
    "top p": {**MOE, "top_p": 0.5},
    "shared": {**MOE, "shared": 1},
    "null": {**MOE, "null": 1, "shared": 1},
    "residual": {**MOE, "null": 1, "shared": 1, "residual": True},
    "by modality": {**MOE, "route": {"text": [0], "image": [1, 2], "sound": [2]}},
}
SAMPLES = [
    asked(Text("plain")),
    asked(Text("see"), media("image", 1), Text("and"), media("sound", 1), Text("both")),
    answered((Text("ab"), media("image", 2), Text("cd")), Text("two")),
    answered((media("motion", 1), Text("more")), drawing(2)),
]


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture(scope="module")
def adapted(omni_folder, kind):
    model = model_with(omni_folder, a=kind)
    stir(model, "a", scale=0.3)
    return model


def hooks_of(model) -> list[SparseExperts]:
    return [part for part in model.backbone.modules() if isinstance(part, SparseExperts)]


def test_copies_of_the_dense_feed_forward_give_the_dense_logits(omni_folder, kind):
    """Up to rounding: weights sum to 1; bit for bit in the residual form. Null experts alone give less."""
    plain, adapted = plain_model(omni_folder), model_with(omni_folder, a=kind)
    for hook in hooks_of(adapted):
        nn.init.normal_(hook.router)
    for sample in SAMPLES:
        plan = plain.planner.plan(sample)
        ours, theirs = logits_of(adapted, plan), logits_of(plain, plan)
        if kind.get("residual"):
            assert torch.equal(ours[0], theirs[0])
        else:
            assert (largest(ours, theirs) <= 1e-4) == ("null" not in kind)


LORA = {"type": "lora", "rank": 2, "routes": ["image"]}


@pytest.mark.parametrize("order", ["before", "behind"])
def test_adapters_of_a_feed_forward_that_never_runs_are_refused(omni_folder, order):
    adapters = {"l": LORA, "a": MOE} if order == "before" else {"a": MOE, "l": LORA}
    with pytest.raises(ConfigError, match=r"never run.*`residual: true`"):
        model_with(omni_folder, **adapters)
    model_with(omni_folder, **{**adapters, "l": {**LORA, "targets": ["*q_proj"]}})


@pytest.mark.parametrize("lora", [LORA, {"type": "lora_experts", "experts": 2, "rank": 2}])
def test_residual_experts_add_to_a_dense_result_that_has_adapters(omni_folder, lora):
    plain = model_with(omni_folder, l=lora)
    both = model_with(omni_folder, l=lora, a=KINDS["residual"])
    assert any(".mlp." in name for name in both.components()["l"])
    for model in (plain, both):
        stir(model, "l", scale=0.3)
    stir(both, "a", scale=0.3)
    for hook in hooks_of(both):
        for expert in [*hook.experts, *hook.shared]:
            expert.load_state_dict({key.replace(".base.", "."): value for key, value in dense_of(both, hook).items()})
    for sample in SAMPLES:
        plan = plain.planner.plan(sample)
        assert torch.equal(logits_of(both, plan)[0], logits_of(plain, plan)[0])


def dense_of(model, hook):
    """The weights of the feed-forward that a hook stands in for, without adapters."""
    state = model.backbone.ffn(hook.layer).state_dict()
    return {key: value for key, value in state.items() if ".adapters." not in key}


def test_padded_and_packed_batches_are_what_their_samples_are_alone(adapted):
    assert together(adapted, SAMPLES) <= 1e-4


def test_decoding_with_the_cache_is_the_whole_pass_again(adapted):
    assert_decoding(adapted, SAMPLES)


def test_gradients_reach_every_parameter_of_the_adapter_and_none_beside_also_when_layers_run_again(omni_folder, kind):
    grads = []
    for again in (False, True):
        model = model_with(omni_folder, backbone={"gradient_checkpointing": again}, a=kind)
        stir(model, "a", scale=0.3)
        trained = model.train_only(["a"])
        losses = model.losses(Plan.pack([model.planner.plan(sample) for sample in SAMPLES], 200))
        assert set(losses.auxiliary) == {"a/balance/0", "a/balance/1"}
        losses.total().backward()
        assert set(model.context.losses) == {"a/balance/0", "a/balance/1"}
        assert all(value.grad is None for part, _, value in model.named_component_parameters() if part != "a")
        grads.append({name: value.grad for name, value in trained.items()})
    for name, grad in grads[0].items():
        assert bool(grad.any()), name
        torch.testing.assert_close(grads[1][name], grad, atol=1e-4, rtol=1e-3)


def test_saved_experts_give_the_same_logits_bit_for_bit(omni_folder, tmp_path, kind, adapted):
    loaded = reloaded(adapted, omni_folder, tmp_path, a=kind)
    plan = Plan.stack([adapted.planner.plan(sample) for sample in SAMPLES])
    assert all(torch.equal(*pair) for pair in zip(logits_of(loaded, plan), logits_of(adapted, plan), strict=True))


def test_they_run_over_a_bfloat16_language_model(omni_folder, kind):
    model = model_with(omni_folder, backbone={"dtype": "bfloat16"}, a=kind)
    assert {hook.router.dtype for hook in hooks_of(model)} == {torch.float32}
    hidden = model.hidden(Plan.stack([model.planner.plan(sample) for sample in SAMPLES]))
    assert hidden.dtype == torch.bfloat16 and bool(hidden.isfinite().all())


# -- one layer --------------------------------------------------------------------------------------------------------


def layer_of(context=None, **options):
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6))
    hook = SparseExperts(MoEFFN(**options), "a", 0, dense, 6, context or HookContext())
    for value in hook.parameters():
        nn.init.normal_(value)
    return hook, dense


def facts_of(route, document=None):
    route = torch.tensor(route)
    document = torch.zeros_like(route) if document is None else torch.tensor(document)
    return SlotFacts(route, document, torch.arange(route.shape[1]).expand(route.shape))


@pytest.mark.parametrize("residual", [False, True])
def test_each_slot_gets_the_weighted_sum_of_its_experts(residual):
    hook, dense = layer_of(experts=3, null=1, shared=2, top_k=2, residual=residual)
    hidden = torch.randn(2, 5, 6)
    out = hook(hidden, dense, None)
    routing = route_slots(hidden.view(-1, 6) @ hook.router.T, 2, 2, None)
    for number, x in enumerate(hidden.view(-1, 6)):
        weights, base = routing.weights[number], dense(x)
        parts = [weights[index] * expert(x) for index, expert in enumerate(hook.experts)]
        parts += [weights[4 + index] * expert(x) for index, expert in enumerate(hook.shared)]
        # The null expert gives nothing, or keeps the dense result.
        parts += [weights[3] * base] if residual else []
        torch.testing.assert_close(out.view(-1, 6)[number], sum(parts), atol=1e-5, rtol=1e-4)


def test_no_slot_is_dropped_when_all_take_the_same_expert():
    hook, dense = layer_of(experts=3, top_k=1)
    with torch.no_grad():
        hook.router.zero_()
        hook.router[1] = 1
    hidden = torch.rand(4, 50, 6)
    torch.testing.assert_close(hook(hidden, dense, None), hook.experts[1](hidden))


def test_slots_take_the_experts_of_their_modality():
    hook, dense = layer_of(experts=3, route={"one": [2], "text": [0]})
    hook.allowed = MoEFFN(experts=3, route={"one": [2], "text": [0]})._table("a", ["one", "two"])
    hidden = torch.randn(1, 3, 6)
    out = hook(hidden, dense, facts_of([[0, 1, 2]]))
    torch.testing.assert_close(out[0, 0], hook.experts[0](hidden[0, 0]))
    torch.testing.assert_close(out[0, 1], hook.experts[2](hidden[0, 1]))
    free, _ = layer_of(experts=3)
    torch.testing.assert_close(out[0, 2], free(hidden, dense, None)[0, 2])
    with pytest.raises(ConfigError, match="needs the plan's route"):
        hook(hidden, dense, None)


def test_the_balance_counts_real_slots_is_kept_by_layer_and_not_while_decoding_or_without_gradients():
    context = HookContext()
    hook, dense = layer_of(context, experts=3, balance=0.5)
    hidden = torch.randn(1, 4, 6)
    facts = facts_of([[0, 0, 0, 0]], [[0, 0, 0, -1]])
    for _ in range(2):  # a layer that runs again does not count twice
        hook(hidden, dense, facts)
    (loss,) = context.losses.values()
    assert list(context.losses) == ["a/balance/0"]
    assert int(loss.count) == 3 and loss.weight == 0.5 and loss.is_coupled
    alone = HookContext()
    hook.context = alone
    hook(hidden[:, :3], dense, facts_of([[0, 0, 0]]))
    torch.testing.assert_close(loss.total, alone.losses["a/balance/0"].total)
    hook.context = HookContext()
    with torch.no_grad():
        hook(hidden, dense, facts)
    hook(hidden[:, :1], dense, SlotFacts(*[torch.zeros(1, 1, dtype=torch.long)] * 3, is_step=True))
    hook(hidden, dense, None)
    assert not hook.context.losses


def test_copies_leave_adapters_at_linear_layers_behind(omni_folder):
    lora = {"type": "lora", "targets": ["*.gate_proj"]}
    model = model_with(omni_folder, a=lora, b={**MOE, "residual": True})
    assert not any(".down" in name and "experts" in name for name in model.components()["a"])
    assert all("adapters.a" not in name and ".base." not in name for name in model.components()["b"])
    assert {name.rsplit(".", 2)[1] for name in model.components()["b"] if "experts" in name} == {
        "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip


# -- other language models --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("gpt2", _GPT2),
        ("gemma2", {"query_pre_attn_scalar": 8}),
        ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
        ("qwen3_moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}),
        ("opt", {"ffn_dim": 64}),
    ],
)
def test_other_language_models_take_experts_of_what_they_have_or_say_that_they_cannot(tmp_path, kind, options):
    config = transformers.AutoConfig.for_model(kind, **{**_TINY, **options})
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    backbone = CausalLM(id=str(tmp_path))
    site = Site(backbone, 32, (), {}, HookContext(), lambda *_: None)
    plan = Plan.stack(prompts_of(model_of(backbone)))
    with torch.no_grad():
        plain = backbone(backbone.embed(plan.ids), plan).hidden
    if kind == "opt":
        with pytest.raises(ConfigError, match="feed-forward of OPTDecoderLayer cannot be replaced"):
            MoEFFN().install("a", site)
        return
    MoEFFN(experts=2).install("a", site)
    with torch.no_grad():
        hidden = backbone(backbone.embed(plan.ids), plan).hidden
    real = ~plan.is_padding
    torch.testing.assert_close(hidden[real], plain[real], atol=1e-4, rtol=1e-4)
    backbone.requires_grad_(True)
    facts = SlotFacts(plan.route, plan.document, torch.arange(plan.shape[1]).expand(plan.shape))
    with site.context.of(facts):
        backbone(backbone.embed(plan.ids), plan).hidden.sum().backward()
    hooks = [part for part in backbone.modules() if isinstance(part, SparseExperts)]
    assert len(hooks) == backbone.num_layers
    assert all(value.grad is not None for hook in hooks for value in hook.experts.parameters())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"experts": 0}, "at least one expert"),
        ({"experts": 2, "top_k": 3}, "a top_k among them"),
        ({"top_p": 1.5}, "0 < top_p <= 1"),
        ({"balance": -1.0}, "a balance of 0 or more"),
        ({"route": {"image": [4]}}, "expected some of the experts 0 to 3"),
        ({"route": {"imagge": [1]}}, "routed to 'imagge'. Did you mean 'image'"),
        ({"layers": [5]}, "acts in layer 5"),
    ],
    ids=str,
)
def test_a_mixture_that_means_nothing_is_refused(omni_folder, spec, message):
    with pytest.raises(ConfigError, match=message):
        model_with(omni_folder, a={"type": "moe_ffn", **spec})


def test_two_mixtures_in_one_layer_are_refused(omni_folder):
    with pytest.raises(ConfigError, match="second in place of one feed-forward"):
        model_with(omni_folder, a=MOE, b=MOE)
