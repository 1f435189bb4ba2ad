"""The language model inside a whole multimodal checkpoint: it alone is loaded, and it is transformers' own."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from omniloom.backbone.causal_lm import CausalLM, load_tokenizer
from omniloom.backbone.seq2seq_lm import Seq2SeqLM
from omniloom.errors import CheckpointError
from omniloom.model import OmniModel, Sampling, generate
from omniloom.planner import Planner, Template
from omniloom.sequence import Plan, Sample, Text, Turn, Vocabulary
from omniloom.testing.doubles import tiny_tokenizer
from tests.published.models import TEXT, stirred
from tests.published.test_blip import blip2_opt, blip2_t5, instructblip_t5, instructblip_vicuna
from tests.published.test_llava import config as llava_config
from tests.published.test_qwen_vl import qwen2_5_vl


def llava():
    return transformers.LlavaForConditionalGeneration(llava_config())


def llava_of_one_table():
    text = {"model_type": "llama", **TEXT, "tie_word_embeddings": True}
    return transformers.LlavaForConditionalGeneration(llava_config(text_config=text, tie_word_embeddings=True))


def gemma3():
    """One that transformers counts among the causal language models too."""
    text = {**TEXT, "head_dim": 8, "sliding_window": 8, "num_key_value_heads": 2}
    vision = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 28,
        "patch_size": 14,
    }  # fmt: skip
    return transformers.Gemma3ForConditionalGeneration(
        transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    )


# Model -> where its language model stands, without the head.
MODELS = {
    llava: "model.language_model",
    llava_of_one_table: "model.language_model",
    qwen2_5_vl: "model.language_model",
    gemma3: "model.language_model",
    blip2_opt: "language_model.model",
    instructblip_vicuna: "language_model.model",
}
WORDS = ["hi", "hello there, you", "x"]


@pytest.fixture(scope="module", params=MODELS, ids=lambda make: make.__name__)
def pair(request, tmp_path_factory):
    """(transformers' whole model, the body in it, our backbone of its folder, that folder)."""
    folder = tmp_path_factory.mktemp("whole")
    whole = stirred(request.param())
    whole.tie_weights()
    whole.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return whole, whole.get_submodule(MODELS[request.param]), CausalLM(id=str(folder)), folder


def model_of(backbone) -> OmniModel:
    tokenizer = tiny_tokenizer()
    template = Template.of(tokenizer, stop=backbone.stop_ids)
    planner = Planner(tokenizer, template, {}, Vocabulary.of(backbone.vocab_size, {}))
    return OmniModel(backbone, planner, {}, {}, {}).eval()


def prompts_of(model: OmniModel) -> list[Plan]:
    return [model.planner.plan(Sample(text, (Turn("user", (Text(text),)),)), ask=True) for text in WORDS]


@torch.no_grad()
def test_logits_of_text_are_those_of_transformers_bit_for_bit(pair):
    whole, body, backbone, _ = pair
    model = model_of(backbone)
    for plan in prompts_of(model):
        hidden = body(input_ids=plan.ids).last_hidden_state
        assert torch.equal(model.logits(model.hidden(plan)), whole.get_output_embeddings()(hidden))


@torch.no_grad()
def test_decoding_gives_the_greedy_text_of_the_whole_model_in_a_padded_batch(pair):
    whole, body, backbone, _ = pair
    model = model_of(backbone)
    plans = prompts_of(model)
    for plan, reply in zip(plans, generate(model, plans, Sampling(max_new=6)), strict=True):
        ids = plan.ids
        for token in reply.ids:
            assert int(whole.get_output_embeddings()(body(input_ids=ids).last_hidden_state[0, -1]).argmax()) == token
            ids = torch.cat([ids, torch.tensor([[token]])], 1)


def test_nothing_but_the_language_model_and_its_head_is_there(pair):
    whole, body, backbone, _ = pair
    inside = sum(value.numel() for value in body.parameters())
    head = whole.get_output_embeddings().weight
    is_tied = head is whole.get_input_embeddings().weight
    assert sum(value.numel() for value in backbone.parameters()) == inside + (0 if is_tied else head.numel())
    assert (backbone.head_table() is backbone.embedding_table()) == is_tied
    assert not [name for name, _ in backbone.named_modules() if "vision" in name or "visual" in name]


def test_its_layers_have_doors_and_its_gradient_may_be_checkpointed(pair):
    _, _, backbone, folder = pair
    assert backbone.num_layers == 2 and backbone.attention_heads(1) == 4
    model = model_of(CausalLM(id=str(folder), gradient_checkpointing=True))
    model.requires_grad_(True)
    plain = model_of(backbone)
    plain.requires_grad_(True)
    for one in (model, plain):
        one.hidden(prompts_of(one)[1]).square().sum().backward()
    theirs = dict(plain.named_parameters())
    for name, value in model.named_parameters():
        if value.grad is not None:
            torch.testing.assert_close(value.grad, theirs[name].grad, atol=1e-4, rtol=1e-4)
    plain.requires_grad_(False)


def test_it_is_built_on_the_meta_device_and_with_random_weights(pair):
    _, _, backbone, folder = pair
    with torch.device("meta"):
        shapes = CausalLM(id=str(folder), weights=False)
    assert {value.device.type for value in shapes.parameters()} == {"meta"}
    built = CausalLM(id=str(folder), weights=False, dtype="bfloat16")
    assert built.embedding_table().dtype == torch.bfloat16
    names = {name: value.shape for name, value in backbone.named_parameters()}
    assert names == {name: value.shape for name, value in built.named_parameters()}
    assert not torch.equal(built.embedding_table().float(), backbone.embedding_table())


def test_a_file_that_lacks_a_parameter_is_refused(pair, tmp_path):
    shutil.copytree(pair[3], tmp_path / "cut")
    tensors = load_file(tmp_path / "cut" / "model.safetensors")
    name = next(name for name in tensors if ".layers.1." in name and "q_proj.weight" in name and "vision" not in name)
    del tensors[name]
    save_file(tensors, tmp_path / "cut" / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="lack 1 parameters of its language model"):
        CausalLM(id=str(tmp_path / "cut"))


@pytest.mark.parametrize("make", [blip2_t5, instructblip_t5], ids=lambda make: make.__name__)
def test_an_encoder_decoder_inside_is_one_here_too(make, tmp_path):
    whole = stirred(make())
    whole.save_pretrained(tmp_path)
    backbone = Seq2SeqLM(id=str(tmp_path), template="plain")
    theirs = dict(whole.language_model.named_parameters())
    mine = dict(backbone.lm.named_parameters())
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("file", ["chat_template.json", "processor_config.json"])
def test_a_tokenizer_without_a_chat_template_takes_that_of_the_processor(file, tmp_path):
    tokenizer = tiny_tokenizer()
    template, tokenizer.chat_template = tokenizer.chat_template, None
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).chat_template is None
    (tmp_path / file).write_text(json.dumps({"chat_template": template}))
    assert load_tokenizer(str(tmp_path)).chat_template == template


def test_the_template_of_the_processor_goes_before_a_template_of_words_alone(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer.save_pretrained(tmp_path, save_jinja_files=False)
    assert not (tmp_path / "chat_template.jinja").exists()
    assert load_tokenizer(str(tmp_path)).chat_template == tokenizer.chat_template
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "of the processor"}))
    assert load_tokenizer(str(tmp_path)).chat_template == "of the processor"
    (tmp_path / "chat_template.jinja").write_text("of both")
    assert load_tokenizer(str(tmp_path)).chat_template == "of both"
