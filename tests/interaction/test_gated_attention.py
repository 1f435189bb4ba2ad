"""Attention to media beside the layer's own, against LLaMA-Adapter's formula written out."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn

from omniloom.backbone.causal_lm import CausalLM
from omniloom.errors import ConfigError
from omniloom.interaction.base import HookContext, Site, SlotFacts, Source
from omniloom.interaction.gated_attention import GatedAttention, GatedSide
from omniloom.interaction.sides import Sides
from omniloom.sequence import Text
from omniloom.testing.doubles import tiny_tokenizer
from tests.backbone.test_causal_lm import _GPT2, _TINY, model_of, prompts_of
from tests.examples import asked, logits_of, media
from tests.interaction.laws import beside, model_with, stir


class Attention(nn.Module):
    """Key and value projections with two query heads for one of keys."""

    def __init__(self, k_norm=None):
        super().__init__()
        self.k_proj, self.v_proj, self.head_dim = nn.Linear(6, 4), nn.Linear(6, 4), 4
        if k_norm:
            self.k_norm = k_norm


def sides_of(rows, start):
    count = len(rows)
    whole = torch.zeros(1, count, dtype=torch.long)
    return Sides(rows[None], whole, torch.tensor([start]), torch.arange(count)[None], whole + 1)


def facts_of(slots, **sides):
    slot = torch.arange(slots)[None]
    return SlotFacts(torch.zeros_like(slot), torch.zeros_like(slot), slot, sides=sides)


def test_what_is_added_is_the_gate_times_the_softmax_over_media_alone():
    torch.manual_seed(0)
    attention, rows, query = Attention(), torch.randn(3, 6), torch.randn(1, 2, 5, 4)
    side = GatedSide("a", 0, [1], width=6, heads=2, context=HookContext())
    with torch.no_grad():
        side.gate.copy_(torch.tensor([0.5, -2.0]))
    out = side(query, attention, facts_of(5, a=sides_of(rows, [2, 2, 4])))
    key, value = attention.k_proj(rows + side.query), attention.v_proj(rows + side.query)
    for head in range(2):
        for slot in range(5):
            seen = {0: 0, 1: 0, 2: 2, 3: 2, 4: 3}[slot]
            weights = (key[:seen] @ query[0, head, slot]).softmax(0)
            expected = side.gate[head].tanh() * (weights @ value[:seen])
            torch.testing.assert_close(out[0, head, slot], expected)
    assert torch.equal(out[0, :, :2], torch.zeros(2, 2, 4))


def test_of_a_single_row_the_value_itself_is_added():
    """ImageBind-LLM's case: the softmax over one row is 1, whatever its score."""
    attention, row, query = Attention(), torch.randn(1, 6), torch.randn(1, 2, 3, 4)
    side = GatedSide("a", 0, [1], width=6, heads=2, context=HookContext())
    nn.init.ones_(side.gate)
    out = side(query, attention, facts_of(3, a=sides_of(row, [0])))
    value = attention.v_proj(row + side.query)[0]
    torch.testing.assert_close(out, (torch.ones(1).tanh() * value).expand_as(out))


@pytest.mark.parametrize("size", [4, 8])
def test_keys_are_normed_where_the_layers_own_are(size):
    """Over each head as in Qwen3, or over all heads before they part as in OLMo 2."""
    attention = Attention(nn.RMSNorm(size))
    attention.k_proj, attention.v_proj = nn.Linear(6, 8), nn.Linear(6, 8)
    nn.init.normal_(attention.k_norm.weight)
    side = GatedSide("a", 0, [1], width=6, heads=2, context=HookContext())
    rows = torch.randn(2, 6)
    key, _ = side._keys_and_values(sides_of(rows, [0, 0]), attention, facts_of(3))
    flat = attention.k_proj(rows + side.query)
    expected = attention.k_norm(flat.view(2, 2, 4) if size == 4 else flat).view(2, 2, 4)
    torch.testing.assert_close(key[0], expected.transpose(0, 1))


def test_keys_and_values_are_made_once_while_a_prompt_is_answered_and_anew_for_gradients():
    attention, calls = Attention(), []
    attention.k_proj.register_forward_hook(lambda *_: calls.append(1))
    side = GatedSide("a", 3, [1], width=6, heads=2, context=HookContext())
    sides = sides_of(torch.randn(2, 6), [0, 0])
    query, facts = torch.randn(1, 2, 3, 4), facts_of(3, a=sides)
    with torch.no_grad():
        first, second = side(query, attention, facts), side(query, attention, facts)
    assert len(calls) == 1 and torch.equal(first, second)
    sides.kept.clear()
    side(query, attention, facts), side(query, attention, facts)
    assert len(calls) == 3 and not sides.kept


def test_a_layer_reads_the_modalities_of_its_own_block(omni_folder):
    blocks = {"type": "gated_attention", "inputs": ["image", "sound"], "layers": {"image": [0], "sound": [0, 1]}}
    model = model_with(omni_folder, a=blocks)
    hooks = [hook for hook in model.backbone.modules() if isinstance(hook, GatedSide)]
    assert [(hook.layer, hook.routes) for hook in hooks] == [(0, (1, 2)), (1, (2,))]
    stir(model, "a")
    plan = model.planner.plan(asked(media("image", 1), Text("a")))
    felt = logits_of(model, plan)[0]
    with torch.no_grad():
        hooks[1].gate.zero_()
    assert torch.equal(logits_of(model, plan)[0], felt)


def test_an_adapter_routed_by_slots_acts_on_keys_of_media_by_their_modality(omni_folder):
    """Low-rank adapters at the projections see rows of media too, and take them for what they are."""
    gated = {"type": "gated_attention", "inputs": ["image"]}

    def logits_with(routes):
        lora = {"type": "lora", "targets": ["*.v_proj"], "routes": routes}
        model = model_with(omni_folder, modalities=beside("image"), a=gated, b=lora)
        stir(model, "a", "b")
        plan = model.planner.plan(asked(Text("a"), media("image", 1), Text("b")))
        return plan.items[0].start, logits_of(model, plan)[0]

    (start, on), (_, off) = logits_with(["image"]), logits_with(["sound"])
    assert torch.equal(on[:start], off[:start]) and not torch.equal(on[-1], off[-1])


def site_of(folder, kind, options, width=32):
    config = transformers.AutoConfig.for_model(kind, **{**_TINY, **options})
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    sources = {"m": Source(8, {}, None, width)}
    return Site(CausalLM(id=str(folder)), 32, ("m",), sources, HookContext(), lambda *_: None)


@pytest.mark.parametrize(
    ("kind", "options"), [("qwen3", {}), ("opt", {"ffn_dim": 64}), ("gemma3_text", {}), ("olmo2", {})]
)
def test_other_language_models_take_it_too(tmp_path, kind, options):
    site = site_of(tmp_path, kind, options)
    GatedAttention(inputs=["m"]).install("a", site)
    for value in site.backbone.parameters():
        if value.shape == (4,):
            nn.init.ones_(value)
    plan = prompts_of(model_of(site.backbone))[1]
    rows = torch.randn(1, 2, 32)
    whole = torch.zeros(1, 2, dtype=torch.long)
    sides = Sides(rows, whole, whole + 4, whole, whole + 1)
    slot = torch.arange(plan.shape[1])[None]
    with torch.no_grad():
        plain = site.backbone(site.backbone.embed(plan.ids), plan).hidden
        with site.context.of(SlotFacts(plan.route, plan.document, slot, sides={"a": sides})):
            hidden = site.backbone(site.backbone.embed(plan.ids), plan).hidden
    assert torch.equal(hidden[:, :4], plain[:, :4]) and bool((hidden != plain).any(-1)[:, 4:].all())


@pytest.mark.parametrize(
    ("kind", "options", "width", "message"),
    [
        ("gpt2", _GPT2, 32, "projections of GPT2Attention|those of GPT2Attention are no layers"),
        ("llama", {}, 16, "16 wide at the end of their projectors; the language model is 32"),
    ],
)
def test_a_language_model_or_rows_that_do_not_fit_are_refused(tmp_path, kind, options, width, message):
    with pytest.raises(ConfigError, match=message):
        GatedAttention(inputs=["m"]).install("a", site_of(tmp_path, kind, options, width))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"inputs": []}, "needs `inputs`"),
        ({"inputs": ["imagge"]}, "reads 'imagge'. Did you mean 'image'"),
        ({"inputs": ["image"], "layers": [0, 2]}, "acts in layer 2; the language model has 2 layers"),
        ({"inputs": ["image"], "layers": "some"}, "expected 'all' or a list"),
        ({"inputs": ["image"], "layers": []}, "acts in no layer"),
        ({"inputs": ["image"], "layers": {"sound": [0]}}, "has layers for 'sound'"),
        ({"inputs": ["image", "sound"], "layers": {"image": [0]}}, "reads 'sound' but has no layers"),
    ],
    ids=str,
)
def test_an_adapter_that_means_nothing_is_refused(omni_folder, spec, message):
    with pytest.raises(ConfigError, match=message):
        model_with(omni_folder, a={"type": "gated_attention", **spec})
