"""Stock language models of transformers behind a plan: their own logits bit for bit, their own greedy text."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from omniloom.backbone.base import CacheView
from omniloom.backbone.causal_lm import CausalLM, load_tokenizer
from omniloom.config import RunConfig
from omniloom.errors import ConfigError, MissingAssetError
from omniloom.model import OmniModel, Sampling, compose, generate
from omniloom.planner import Planner, Template
from omniloom.sequence import Item, Plan, Sample, Text, Turn, Vocabulary
from omniloom.testing.doubles import tiny_language_model, tiny_tokenizer

_TINY = {
    "vocab_size": 259, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "bos_token_id": 0, "eos_token_id": 2,
    "pad_token_id": 0, "initializer_range": 0.3,
}  # fmt: skip
_SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}

# Name of a model -> (type, options). Windows are far shorter than the prompts.
MODELS = {
    "llama": ("llama", {}),
    "qwen2": ("qwen2", {}),
    "qwen2 sliding": ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "qwen3": ("qwen3", {}),
    "gemma2, eager": ("gemma2", {"sliding_window": 4, "query_pre_attn_scalar": 8}),
    "gemma3": ("gemma3_text", {"sliding_window": 4, "query_pre_attn_scalar": 8, "layer_types": _SLIDING}),
    "mistral": ("mistral", {"sliding_window": 4}),
    "phi3": ("phi3", {"sliding_window": 4}),
    "gpt_neox": ("gpt_neox", {}),
    "gpt2": ("gpt2", _GPT2),
    "gptj, eager": ("gptj", {**_GPT2, "rotary_dim": 4}),
    "opt": ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 16}),
    "granite": ("granite", {"logits_scaling": 4.0, "embedding_multiplier": 3.0}),
    "hyperclovax": ("hyperclovax", {"logits_scaling": 0.125}),
    "cohere2": ("cohere2", {"sliding_window": 4}),
    "gpt_oss, eager": (
        "gpt_oss",
        {"sliding_window": 4, "num_local_experts": 2, "num_experts_per_tok": 1, "layer_types": _SLIDING},
    ),
}
UNMASKABLE = {
    "bloom": ("bloom", {"n_layer": 2, "n_head": 4}),
    "mpt": ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 256, "logit_scale": 0.5}),
    "falcon_h1": (
        "falcon_h1",
        {
            "mamba_d_ssm": 32,
            "mamba_n_heads": 4,
            "mamba_d_head": 8,
            "mamba_d_state": 8,
            "mamba_chunk_size": 8,
            "lm_head_multiplier": 0.3,
        },
    ),
}
WORDS = ["hi", "hello there, you", "abc de", "x"]


def saved(folder, name: str, table=MODELS):
    kind, options = table[name]
    config = transformers.AutoConfig.for_model(kind, **{**_TINY, **options})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def model_of(backbone: CausalLM) -> OmniModel:
    tokenizer = tiny_tokenizer()
    template = Template.of(tokenizer, stop=backbone.stop_ids)
    return OmniModel(
        backbone, Planner(tokenizer, template, {}, Vocabulary.of(backbone.vocab_size, {})), {}, {}, {}
    ).eval()


@pytest.fixture(scope="module", params=MODELS)
def pair(request, tmp_path_factory):
    """(transformers' model, ours over the same folder)."""
    folder = saved(tmp_path_factory.mktemp("lm"), request.param)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return theirs, model_of(CausalLM(id=str(folder)))


def prompts_of(model: OmniModel) -> list[Plan]:
    return [
        model.planner.plan(Sample(str(n), (Turn("user", (Text(text),)),)), ask=True) for n, text in enumerate(WORDS)
    ]


def said_by(theirs, plan: Plan, count: int = 10) -> list[int]:
    ids = theirs.generate(plan.ids, attention_mask=torch.ones_like(plan.ids), max_new_tokens=count, do_sample=False)
    return ids[0, plan.shape[1] :].tolist()


@torch.no_grad()
def test_logits_are_transformers_own_bit_for_bit(pair):
    theirs, model = pair
    for plan in prompts_of(model):
        assert torch.equal(model.logits(model.hidden(plan)), theirs(input_ids=plan.ids).logits)


@torch.no_grad()
def test_padded_and_packed_logits_are_those_of_one_by_one(pair):
    theirs, model = pair
    plans = prompts_of(model)
    alone = [theirs(input_ids=plan.ids).logits[0] for plan in plans]
    for batch in (Plan.stack(plans), Plan.pack(plans, 100)):
        logits = model.logits(model.hidden(batch))
        for index, name in enumerate(batch.samples):
            torch.testing.assert_close(logits[batch.document == index], alone[int(name)], atol=1e-4, rtol=0)


def test_greedy_text_is_that_of_generate_alone_and_in_a_padded_batch(pair):
    theirs, model = pair
    plans = prompts_of(model)
    expected = [said_by(theirs, plan) for plan in plans]
    sampling = Sampling(max_new=10)
    assert [list(generate(model, [plan], sampling)[0].ids) for plan in plans] == expected
    assert [list(reply.ids) for reply in generate(model, plans, sampling)] == expected


@torch.no_grad()
def test_each_step_gives_the_logits_of_the_full_forward(pair):
    theirs, model = pair
    plans = prompts_of(model)
    batch, tail = Plan.stack(plans), [20, 30, 40, 50, 60, 70]
    cache = model.backbone.new_cache()
    model.hidden(batch, cache=cache)
    view = CacheView(cache, ~batch.is_padding, batch.lengths.clone())
    steps = [
        model.logits(model.backbone.step(model.embed_ids(torch.full((len(plans), 1), token)), view)) for token in tail
    ]
    for row, plan in enumerate(plans):
        whole = theirs(input_ids=torch.cat([plan.ids, torch.tensor([tail])], 1)).logits[0, plan.shape[1] :]
        torch.testing.assert_close(torch.stack([logits[row] for logits in steps]), whole, atol=1e-4, rtol=0)


@torch.no_grad()
def test_taps_are_transformers_hidden_states(pair):
    theirs, model = pair
    plan = prompts_of(model)[1]
    out = model.backbone(model.embed(plan), plan, taps=(0, 1, 2))
    hidden = theirs(input_ids=plan.ids, output_hidden_states=True).hidden_states
    assert all(torch.equal(out.taps[layer], hidden[layer]) for layer in (0, 1, 2))


@pytest.mark.parametrize("name", UNMASKABLE)
def test_models_that_masks_cannot_part_answer_alone_and_refuse_to_be_packed(name, tmp_path):
    model = model_of(CausalLM(id=str(saved(tmp_path, name, UNMASKABLE))))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    plans = prompts_of(model)
    assert not model.backbone.is_maskable
    with torch.no_grad():
        for plan in plans:
            assert torch.equal(model.logits(model.hidden(plan)), theirs(input_ids=plan.ids).logits)
    with pytest.raises(ConfigError, match="cannot keep packed documents apart"):
        model.hidden(Plan.pack(plans, 100))
    with pytest.raises(ConfigError, match="rows of different lengths"):
        model.hidden(Plan.stack(plans), cache=model.backbone.new_cache())
    assert [list(reply.ids) for reply in generate(model, plans, Sampling(max_new=8))] == [
        said_by(theirs, p, 8) for p in plans
    ]


def test_a_model_without_a_key_value_cache_is_refused(tmp_path):
    folder = saved(tmp_path, "mamba", {"mamba": ("mamba", {"state_size": 4})})
    with pytest.raises(ConfigError, match="of type 'mamba', whose body"):
        CausalLM(id=str(folder))


def test_a_model_that_does_more_behind_its_layers_is_refused(tmp_path, monkeypatch):
    folder = saved(tmp_path, "llama")
    plain = transformers.LlamaForCausalLM.forward

    def forward(self, *args, **options):
        out = plain(self, *args, **options)
        out.logits = out.logits * 3
        return out

    CausalLM(id=str(folder))
    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", forward)
    with pytest.raises(ConfigError, match="of type 'llama', which does more"):
        CausalLM(id=str(folder))


def test_media_stand_among_embeddings_and_adapters_among_layers_of_another_width(tmp_path):
    """OPT-350m's embeddings are narrower than its layers."""
    saved(tmp_path / "lm", "opt")
    run = {
        "name": "narrow",
        "backbone": {"id": "./lm", "template": "plain"},
        "adapters": {
            "mine": {"type": "prompt", "length": 2, "layers": [1]},
            "gate": {"type": "lora_experts", "targets": ["*.q_proj"]},
        },
        "modalities": {
            "image": {
                "payload": "image",
                "in": {
                    "processor": {"type": "image", "size_px": 16},
                    "encoder": {"type": "patch_vit", "patch_px": 8, "width": 32, "depth": 1, "heads": 2},
                    "projector": "linear",
                },
            }
        },
    }
    model = compose(RunConfig.model_validate(run), base=tmp_path)
    assert (model.backbone.width, model.backbone.inner_width) == (16, 32)
    plan = model.planner.plan(Sample("s", (Turn("user", (Item("image", torch.ones(3, 16, 16)), Text("what?"))),)))
    assert torch.isfinite(model.logits(model.hidden(plan))).all()
    assert model.embed(plan).shape[-1] == 16


def test_weights_in_a_format_whose_package_is_not_here_are_a_missing_asset(tmp_path):
    folder = saved(tmp_path, "llama")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(MissingAssetError, match="quantised weights need the package"):
        CausalLM(id=str(folder))


def test_gradient_checkpointing_recomputes_layers_and_changes_no_gradient(tmp_path):
    folder = tiny_language_model(tmp_path)
    grads, calls = [], []
    for on in (False, True):
        model = model_of(CausalLM(id=str(folder), gradient_checkpointing=on))
        model.train_only(["backbone"])
        count = []
        model.backbone.lm.model.layers[0].mlp.register_forward_pre_hook(lambda *_, count=count: count.append(1))
        plan = model.planner.plan(Sample("s", (Turn("user", (Text("q"),)), Turn("assistant", (Text("a"),)))))
        model.loss(plan)["text"][0].backward()
        grads.append({name: value.grad for name, value in model.backbone.named_parameters()})
        calls.append(len(count))
    assert calls == [1, 2]
    assert all(torch.allclose(grads[0][name], grads[1][name], atol=1e-6) for name in grads[0])


def test_gradient_checkpointing_does_not_touch_decoding(tmp_path):
    folder = tiny_language_model(tmp_path)
    plain, checkpointed = (model_of(CausalLM(id=str(folder), gradient_checkpointing=on)) for on in (False, True))
    checkpointed.train_only(["backbone"])
    sampling = Sampling(max_new=6)
    assert generate(checkpointed, prompts_of(plain), sampling) == generate(plain, prompts_of(plain), sampling)


def test_without_weights_the_class_is_the_same_and_the_weights_are_random(tmp_path):
    folder = tiny_language_model(tmp_path)
    torch.manual_seed(1)
    real, random = CausalLM(id=str(folder)), CausalLM(id=str(folder), weights=False)
    assert type(real.lm) is type(random.lm)
    assert not torch.equal(real.embedding_table(), random.embedding_table())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_weights_are_of_the_dtype_that_was_asked_for(tmp_path, dtype):
    backbone = CausalLM(id=str(tiny_language_model(tmp_path)), dtype=dtype)
    assert {value.dtype for value in backbone.parameters()} == {getattr(torch, dtype)}


@pytest.mark.parametrize(
    ("options", "message"),
    [({"dtype": "int8"}, "dtype is 'int8'"), ({"template": "jinja"}, "'chat', 'plain' or 'bare'")],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        CausalLM(id="nowhere", **options)


def test_what_is_not_there_is_a_missing_asset(tmp_path):
    with pytest.raises(MissingAssetError, match="cannot load the language model"):
        CausalLM(id=str(tmp_path))
    with pytest.raises(MissingAssetError, match="cannot load a tokenizer"):
        load_tokenizer(str(tmp_path))


def test_weights_that_are_pickles_are_not_loaded(tmp_path):
    folder = tiny_language_model(tmp_path)
    state = transformers.AutoModelForCausalLM.from_pretrained(folder).state_dict()
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(MissingAssetError):
        CausalLM(id=str(folder))


def test_stop_ids_are_those_of_the_generation_config(tmp_path):
    folder = tiny_language_model(tmp_path)
    transformers.GenerationConfig(eos_token_id=[2, 0]).save_pretrained(folder)
    assert CausalLM(id=str(folder)).stop_ids == {0, 2}
