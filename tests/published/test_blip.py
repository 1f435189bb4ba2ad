"""BLIP-2 and InstructBLIP as runs: rows, logits and greedy answers are those of transformers' own classes."""

from __future__ import annotations

import pytest
import torch
import transformers
from tokenizers import processors

from omniloom.checkpoint import adopt, load_model
from omniloom.model import Sampling, generate
from omniloom.sequence import Item, Kind, Plan
from omniloom.testing.doubles import tiny_tokenizer
from tests.published.models import FIRST_SPECIAL, TEXT, logits_of, picture, sample, stirred, user, write

IMAGE, QUERIES, BEGIN, END, NEWLINE = FIRST_SPECIAL, 5, 0, 2, 13
VISION = {
    "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 16,
    "patch_size": 4,
}  # fmt: skip
QFORMER = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32,
    "encoder_hidden_size": 24, "vocab_size": 259, "max_position_embeddings": 64,
}  # fmt: skip
OPT = {
    "model_type": "opt", "vocab_size": 280, "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "word_embed_proj_dim": 32, "max_position_embeddings": 256, "dropout": 0.0,
    "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
T5 = {
    "model_type": "t5", "vocab_size": 280, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4,
    "feed_forward_proj": "gated-gelu", "pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0,
    "dropout_rate": 0.0,
}  # fmt: skip
PROCESSOR = {"image_processor_type": "BlipImageProcessor", "size": {"height": 16, "width": 16}}


def parts(text: dict) -> dict:
    return {
        "vision_config": VISION, "qformer_config": QFORMER, "text_config": text, "num_query_tokens": QUERIES,
        "image_token_index": IMAGE,
    }  # fmt: skip


def blip2_opt():
    """As published, an answer ends with a line: by the configuration of the language model, which is the one asked."""
    text = {**OPT, "eos_token_id": NEWLINE}
    return transformers.Blip2ForConditionalGeneration(transformers.Blip2Config(**parts(text)))


def blip2_t5():
    return transformers.Blip2ForConditionalGeneration(transformers.Blip2Config(**parts(T5)))


def instructblip_vicuna():
    text = {"model_type": "llama", **TEXT}
    return transformers.InstructBlipForConditionalGeneration(transformers.InstructBlipConfig(**parts(text)))


def instructblip_t5():
    return transformers.InstructBlipForConditionalGeneration(transformers.InstructBlipConfig(**parts(T5)))


MODELS = [blip2_opt, blip2_t5, instructblip_vicuna, instructblip_t5]


@pytest.fixture(scope="module", params=MODELS, ids=lambda make: make.__name__)
def pair(request, tmp_path_factory):
    """(transformers' model, ours)."""
    folder = tmp_path_factory.mktemp("blip")
    theirs = stirred(request.param())
    write(folder / "model", theirs, ["<image>"], None, preprocessor_config=PROCESSOR)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    begin, end = ("<|endoftext|>", BEGIN), ("<|im_end|>", END)
    around = f"$A {end[0]}" if theirs.config.text_config.model_type == "t5" else f"{begin[0]} $A"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=around, special_tokens=[begin, end]
    )
    tokenizer.save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model" / "qformer_tokenizer")
    return theirs, load_model(adopt(str(folder / "model"), folder / "run"))[0]


SAMPLES = [
    sample(user(Item("image", picture(1)), "Question: what is it? Answer:")),
    sample(user(Item("image", picture(2, height=40)), "a photo of")),
]


def plans_of(model) -> list[Plan]:
    return [model.planner.plan(one, ask=True) for one in SAMPLES]


def inputs_of(theirs, model, plan: Plan, text: str) -> dict:
    ids = model.planner.tokenizer(text)["input_ids"]
    given = {
        "pixel_values": plan.items[0].raw[None],
        "input_ids": torch.tensor([[IMAGE] * QUERIES + ids]),
    }
    given["attention_mask"] = torch.ones_like(given["input_ids"])
    if theirs.config.model_type == "instructblip":
        asked = torch.tensor([tiny_tokenizer()(text)["input_ids"]])
        given |= {"qformer_input_ids": asked, "qformer_attention_mask": torch.ones_like(asked)}
    return given


def texts() -> list[str]:
    return [one.turns[0].text for one in SAMPLES]


def test_rows_of_queries_come_first_and_then_the_text_as_its_tokenizer_gives_it(pair):
    for text, plan in zip(texts(), plans_of(pair[1]), strict=True):
        read = [slot for slot in range(plan.shape[1]) if bool(plan.stream[0, slot]) == bool(plan.stream.any())]
        kinds = plan.kind[0, read].tolist()
        assert kinds[:QUERIES] == [int(Kind.MEDIA)] * QUERIES and int(Kind.MEDIA) not in kinds[QUERIES:]
        assert plan.ids[0, read[QUERIES:]].tolist() == pair[1].planner.tokenizer(text)["input_ids"]


@torch.no_grad()
def test_logits_are_those_of_the_original_alone_and_in_a_mixed_batch(pair):
    theirs, model = pair
    plans = plans_of(model)
    expected = []
    for text, plan in zip(texts(), plans, strict=True):
        given = inputs_of(theirs, model, plan, text)
        if theirs.config.text_config.model_type == "t5":
            given["decoder_input_ids"] = torch.tensor([[BEGIN]])
        expected.append(theirs(**given).logits[0])
    for plan, logits in zip(plans, expected, strict=True):
        torch.testing.assert_close(logits_of(model, plan)[0][-len(logits) :], logits, atol=1e-4, rtol=0)
    for ours, logits in zip(logits_of(model, Plan.stack(plans)), expected, strict=True):
        torch.testing.assert_close(ours[-len(logits) :], logits, atol=1e-4, rtol=0)


def test_greedy_answers_are_those_of_generate(pair):
    theirs, model = pair
    plans = plans_of(model)
    for text, plan, reply in zip(texts(), plans, generate(model, plans, Sampling(max_new=8)), strict=True):
        said = theirs.generate(**inputs_of(theirs, model, plan, text), max_new_tokens=8, do_sample=False)
        assert said[0, -len(reply.ids) :].tolist() == list(reply.ids)


def test_an_answer_ends_with_the_token_at_which_the_original_stops(pair):
    theirs, model = pair
    end = theirs.language_model.generation_config.eos_token_id
    assert model.planner.template.stop == {end} and model.planner.template.said_suffix == (end,)
