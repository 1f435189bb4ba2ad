"""The doors in the layers of stock models: nothing without hooks, what was said with them, the same when decoded."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from torch import nn

from omniloom.backbone import hooking
from omniloom.backbone.base import CacheView
from omniloom.backbone.causal_lm import CausalLM
from omniloom.errors import ConfigError
from omniloom.interaction.base import HookContext, SlotFacts
from omniloom.sequence import Plan
from omniloom.testing.doubles import tiny_tokenizer
from tests.backbone.test_causal_lm import _GPT2, _SLIDING, _TINY, model_of, prompts_of

_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
MODELS = {
    "llama": ("llama", {}),
    "llama, eager": ("llama", {"attn_implementation": "eager"}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "opt": ("opt", {"ffn_dim": 64}),
    "gpt2": ("gpt2", {**_GPT2, "n_layer": 3}),
    "gpt_neox": ("gpt_neox", {}),
    "phi3": ("phi3", {"sliding_window": 4}),
    "gemma": ("gemma", {}),
    "gemma2, eager": ("gemma2", {"sliding_window": 4, "query_pre_attn_scalar": 8}),
    "gemma3": ("gemma3_text", {"sliding_window": 4, "query_pre_attn_scalar": 8, "layer_types": _SLIDING}),
    "mixtral": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3_moe": ("qwen3_moe", _MOE),
}
WITHOUT_FFN = {"opt"}


class Shift(nn.Module):
    """Adds a learned row to hidden states, zero at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.zeros(width))

    def forward(self, hidden, facts):
        return hidden + self.row


class Beside(nn.Module):
    """Each head's query, times a gate a head, zero at first."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(heads))

    def forward(self, query, attention, facts):
        return query * self.gate[None, :, None, None]


class Scaled(nn.Module):
    """The stock feed-forward, times one and a bit, which is zero at first."""

    def __init__(self) -> None:
        super().__init__()
        self.bit = nn.Parameter(torch.zeros(()))

    def forward(self, hidden, base, facts):
        return base(hidden) * (1 + self.bit)


class Hiding(nn.Module):
    """The second slot of every document is read by itself alone."""

    def forward(self, slots, keys, facts):
        if facts.is_step:
            return None if keys < 2 else (torch.arange(keys) != 1)[None, None, None]
        first = torch.tensor([[int((row == number).nonzero()[0]) for number in row] for row in facts.document])
        hidden = facts.slot == first + 1
        mine = torch.eye(slots, dtype=torch.bool)
        return (~hidden[:, None, :] | mine)[:, None]


def written(name, path):
    """(name, folder) of a tiny random model of the table."""
    kind, options = MODELS[name]
    options = {key: value for key, value in options.items() if key != "attn_implementation"}
    config = transformers.AutoConfig.for_model(kind, **{**_TINY, **options})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return name, path


@pytest.fixture(scope="module", params=MODELS)
def folder(request, tmp_path_factory):
    return written(request.param, tmp_path_factory.mktemp("lm"))


def backbone_of(folder, **options):
    name, path = folder
    backbone = CausalLM(id=str(path), **options)
    if "eager" in name:
        backbone.lm.set_attn_implementation("eager")
    return backbone.requires_grad_(False)


def facts_of(plan, **changes):
    slot = torch.arange(plan.shape[1]).expand(plan.shape)
    return SlotFacts(plan.route, plan.document, slot, **changes)


def hooked(folder, **options):
    """The backbone with a hook at every door of every layer, and their context."""
    backbone, context = backbone_of(folder, **options), HookContext()
    heads = backbone.lm.config.num_attention_heads
    for layer in range(backbone.num_layers):
        backbone.hook_before(layer, "a", Shift(backbone.width), context)
        backbone.hook_after(layer, "a", Shift(backbone.width), context)
        backbone.hook_attention(layer, "a", Beside(heads), context)
        if folder[0] not in WITHOUT_FFN:
            backbone.hook_ffn(layer, "a", Scaled(), context)
    return backbone, context


def stir(backbone, scale=0.3):
    generator = torch.Generator().manual_seed(1)
    for name, value in backbone.named_parameters():
        if ".adapters." in name:
            with torch.no_grad():
                value.copy_(torch.randn(value.shape, generator=generator) * scale)


def hidden_of(backbone, context, plan, cache=None):
    with context.of(facts_of(plan)):
        return backbone(backbone.embed(plan.ids), plan, cache=cache).hidden


@torch.no_grad()
def test_new_hooks_change_nothing_bit_for_bit_and_no_stock_name_but_behind_the_feed_forward(folder):
    stock, (backbone, context) = backbone_of(folder), hooked(folder)
    for plan in [*prompts_of(model_of(stock)), Plan.pack(prompts_of(model_of(stock)), 100)]:
        assert torch.equal(hidden_of(backbone, context, plan), stock(stock.embed(plan.ids), plan).hidden)
    names = {name.replace(".base.", ".") for name in backbone.lm.state_dict() if ".adapters." not in name}
    assert names == set(stock.lm.state_dict())
    added = [name for name, _ in backbone.named_parameters() if ".adapters." in name]
    assert len(added) == backbone.num_layers * (3 if folder[0] in WITHOUT_FFN else 4)
    assert all(".adapters.a." in name for name in added)


@torch.no_grad()
def test_padded_and_packed_rows_and_decode_steps_give_what_one_by_one_gives(folder):
    backbone, context = hooked(folder)
    for layer in range(backbone.num_layers):
        backbone.hook_visible(layer, "hiding", Hiding(), context)
    stir(backbone)
    plans = prompts_of(model_of(backbone))
    alone = [hidden_of(backbone, context, plan)[0] for plan in plans]
    for batch in (Plan.stack(plans), Plan.pack(plans, 100)):
        together = hidden_of(backbone, context, batch)
        for index, name in enumerate(batch.samples):
            torch.testing.assert_close(together[batch.document == index], alone[int(name)], atol=1e-4, rtol=0)
    batch = Plan.stack([plan_to(plan, plan.shape[1] - 3) for plan in plans])
    cache = backbone.new_cache()
    hidden_of(backbone, context, batch, cache)
    view = CacheView(cache, ~batch.is_padding, batch.lengths.clone())
    facts, last = facts_of(batch), batch.lengths - 1
    for step in range(3):
        facts = facts.step(torch.zeros(len(plans), 1, dtype=torch.long), last)
        last = last + 1
        ids = torch.stack([plan.ids[0, plan.shape[1] - 3 + step] for plan in plans])[:, None]
        with context.of(facts):
            given = backbone.step(backbone.embed(ids), view)
        for row, whole in enumerate(alone):
            torch.testing.assert_close(given[row], whole[len(whole) - 3 + step], atol=1e-4, rtol=0)


def plan_to(plan, length):
    from dataclasses import fields, replace

    cut = {field.name: getattr(plan, field.name) for field in fields(plan)}
    cut = {name: value[..., :length] for name, value in cut.items() if isinstance(value, torch.Tensor)}
    return replace(plan, **cut)


@torch.no_grad()
def test_behind_a_layer_is_in_front_of_the_next_and_taps_hold_what_passed(folder):
    behind, before = backbone_of(folder), backbone_of(folder)
    plan = prompts_of(model_of(behind))[1]
    recorded = behind(behind.embed(plan.ids), plan, taps=(1,)).taps[1]  # records from now on, hooks come later
    hook = Shift(behind.width)
    hook.row.normal_()
    context = HookContext()
    behind.hook_after(0, "a", hook, context)
    before.hook_before(1, "a", hook, context)
    out = behind(behind.embed(plan.ids), plan, taps=(1,))
    assert torch.equal(out.hidden, before(before.embed(plan.ids), plan).hidden)
    torch.testing.assert_close(out.taps[1], recorded + hook.row)


@torch.no_grad()
def test_what_is_added_to_the_heads_goes_through_the_output_projection(folder):
    backbone, context = backbone_of(folder), HookContext()
    plan = prompts_of(model_of(backbone))[1]

    class Constant(nn.Module):
        def forward(self, query, attention, facts):
            return torch.arange(query.shape[1] * query.shape[3]).view(1, query.shape[1], 1, -1).expand(query.shape) / 9

    layer = backbone.layers[0]
    attention = next(part for part in layer.children() if "Attention" in type(part).__name__)
    seen = []
    attention.register_forward_hook(lambda part, args, out: seen.append(out[0]))
    hidden_of(backbone, context, plan)
    backbone.hook_attention(0, "a", Constant(), context)
    hidden_of(backbone, context, plan)
    names = ("o_proj", "out_proj", "c_proj", "dense")
    projection = next(getattr(attention, name) for name in names if hasattr(attention, name))
    row = torch.arange(projection.in_features if isinstance(projection, nn.Linear) else backbone.width) / 9
    expected = projection(row[None]) - projection(torch.zeros_like(row)[None])
    torch.testing.assert_close(seen[1] - seen[0], expected[None].expand_as(seen[0]), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_queries_of_hooks_are_scaled_their_products_with_keys_are_the_scores(folder, monkeypatch):
    backbone, context = backbone_of(folder), HookContext()
    plan = prompts_of(model_of(backbone))[1]
    queries, calls = [], []

    class Watching(nn.Module):
        def forward(self, query, attention, facts):
            queries.append(query)

    def spying(module, query, key, value, mask, *, scaling, **kwargs):
        calls.append(query * scaling)
        return query.transpose(1, 2), None

    backbone.hook_attention(0, "a", Watching(), context)
    backbone.lm.config._attn_implementation_internal = "sdpa"
    monkeypatch.setattr(hooking.ALL_ATTENTION_FUNCTIONS, "get_interface", lambda name, default: spying)
    layer = backbone.layers[0]
    attention = next(part for part in layer.children() if "Attention" in type(part).__name__)
    shape = 1, 4, plan.shape[1], attention.head_dim if hasattr(attention, "head_dim") else attention.head_size
    query = torch.randn(shape)
    scale = getattr(attention, "scaling", 1.0)
    hooking.hooked_attention(attention, query, query, query, None, scaling=scale)
    assert torch.equal(queries[0], calls[0]) and torch.equal(queries[0], query * scale)


@torch.no_grad()
def test_a_slot_that_may_not_be_read_is_as_if_masked(folder):
    backbone, context = backbone_of(folder), HookContext()
    plans = prompts_of(model_of(backbone))
    plan, other = plans[1], copy.deepcopy(plans[1])
    other.ids[0, 1] = 77
    open_ = hidden_of(backbone, context, plan), hidden_of(backbone, context, other)
    assert bool((open_[0] != open_[1]).any(-1)[0, 2:4].all())
    for layer in range(backbone.num_layers):
        backbone.hook_visible(layer, "hiding", Hiding(), context)
    ours, theirs = hidden_of(backbone, context, plan), hidden_of(backbone, context, other)
    # Experts of a mixture run on the slots they were given, so a changed slot may round the others otherwise.
    atol = 1e-5 if folder[0] in ("mixtral", "qwen3_moe") else 0
    torch.testing.assert_close(ours[0, 2:], theirs[0, 2:], atol=atol, rtol=0)
    assert not torch.equal(ours[0, 1], theirs[0, 1])
    assert not torch.equal(ours[0, 2:], open_[0][0, 2:]) and bool(ours.isfinite().all())


def test_gradients_reach_every_hook_and_are_the_same_when_layers_run_again(folder):
    grads = []
    for again in (False, True):
        plan = Plan.pack(prompts_of(model_of(backbone_of(folder))), 100)
        backbone, context = hooked(folder, gradient_checkpointing=again)
        stir(backbone)
        hidden = hidden_of(backbone, context, plan)
        (hidden * torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2))).mean().backward()
        assert context.facts is None
        grads.append({name: value.grad for name, value in backbone.named_parameters()})
    assert {name for name, grad in grads[0].items() if grad is not None} == {
        name for name in grads[0] if ".adapters." in name
    }
    for name, grad in grads[0].items():
        if grad is not None:
            assert bool(grad.any()), name
            torch.testing.assert_close(grads[1][name], grad, atol=1e-5, rtol=1e-4)


def test_a_layer_that_runs_again_reads_the_facts_of_its_own_pass_and_counts_no_loss_twice(folder):
    first, second = prompts_of(model_of(backbone_of(folder)))[:2]
    backbone, context = backbone_of(folder, gradient_checkpointing=True), HookContext()
    seen = []

    class Watching(nn.Module):
        def forward(self, query, attention, facts):
            seen.append(facts)
            context.losses[f"n{len(seen)}"] = None
            return query

    backbone.hook_attention(0, "a", Watching(), context)
    backbone.hook_before(0, "b", Shift(backbone.width), context)
    results = [hidden_of(backbone, context, plan).sum() for plan in (first, second)]
    assert len(seen) == 2 and set(context.losses) == {"n1", "n2"}
    results[0].backward()
    assert len(seen) == 3 and seen[2] is seen[0] and set(context.losses) == {"n1", "n2"}
    results[1].backward()
    assert len(seen) == 4 and seen[3] is seen[1]


@torch.no_grad()
def test_hooks_run_in_bfloat16(folder):
    backbone, context = hooked(folder, dtype="bfloat16")
    for layer in range(backbone.num_layers):
        backbone.hook_visible(layer, "hiding", Hiding(), context)
    stir(backbone)
    for part in backbone.modules():
        if isinstance(part, Shift | Beside | Scaled):
            part.to(torch.bfloat16)
    hidden = hidden_of(backbone, context, Plan.pack(prompts_of(model_of(backbone)), 100))
    assert hidden.dtype == torch.bfloat16 and bool(hidden.isfinite().all())


@torch.no_grad()
def test_a_copy_runs_its_own_hooks(folder):
    backbone, context = hooked(folder)
    plan = prompts_of(model_of(backbone))[1]
    both = copy.deepcopy((backbone, context))
    before = hidden_of(backbone, context, plan)
    stir(both[0])
    assert torch.equal(hidden_of(backbone, context, plan), before)
    assert not torch.equal(hidden_of(*both, plan), before)


def test_the_stock_feed_forward_is_given_hooked_or_not(folder):
    backbone, context = backbone_of(folder), HookContext()
    if folder[0] in WITHOUT_FFN:
        for call in (lambda: backbone.ffn(0), lambda: backbone.hook_ffn(0, "a", Scaled(), context)):
            with pytest.raises(ConfigError, match=r"feed-forward of \w+ cannot be replaced"):
                call()
        return
    stock = backbone.ffn(1)
    backbone.hook_ffn(1, "a", Scaled(), context)
    assert backbone.ffn(1) is stock
    with pytest.raises(ConfigError, match="second in place"):
        backbone.hook_ffn(1, "b", Scaled(), context)


def test_a_layer_that_is_not_there_and_a_name_that_stands_there_already_are_refused(folder):
    backbone, context = backbone_of(folder), HookContext()
    with pytest.raises(ConfigError, match=f"has {backbone.num_layers} layers that can be hooked, none is number 9"):
        backbone.hook_before(9, "a", Shift(32), context)
    backbone.hook_before(0, "a", Shift(32), context)
    with pytest.raises(ConfigError, match="twice at the same place"):
        backbone.hook_before(0, "a", Shift(32), context)
    with pytest.raises(ConfigError, match="cannot be named 'kept'"):
        backbone.hook_before(0, "kept", Shift(32), context)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("gptj", {**_GPT2, "rotary_dim": 4}, "attention of GPTJBlock cannot be hooked"),
        ("bloom", {"n_layer": 2, "n_head": 4}, "attention of BloomBlock cannot be hooked"),
        ("gpt2", {**_GPT2, "reorder_and_upcast_attn": True}, "attention of GPT2Block cannot be hooked"),
    ],
)
def test_attention_outside_of_the_interface_is_refused_when_it_is_hooked(tmp_path, kind, options, message):
    config = transformers.AutoConfig.for_model(kind, **{**_TINY, **options})
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path)
    backbone = CausalLM(id=str(tmp_path))
    assert backbone.num_layers == 3
    with pytest.raises(ConfigError, match=message):
        backbone.hook_attention(0, "a", Beside(4), HookContext())
    backbone.hook_after(0, "a", Shift(32), HookContext())


def test_a_feed_forward_that_gives_more_than_hidden_states_is_refused(tmp_path):
    options = {"sliding_window": 4, "num_local_experts": 2, "num_experts_per_tok": 1, "layer_types": _SLIDING}
    config = transformers.AutoConfig.for_model("gpt_oss", **{**_TINY, **options})
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="feed-forward of GptOssDecoderLayer cannot be replaced"):
        CausalLM(id=str(tmp_path)).hook_ffn(0, "a", Scaled(), HookContext())
