"""LLaVA as a run: template, logits and greedy answers are those of transformers' own class."""

from __future__ import annotations

import pytest
import torch
import transformers

from omniloom.checkpoint import adopt, load_model
from omniloom.sequence import Plan
from tests.planner.sentence_pieces import FORMS, sentence_piece_tokenizer
from tests.published.models import (
    FIRST_SPECIAL,
    TEXT,
    assert_answers,
    assert_logits,
    filled,
    ids_of,
    image,
    rendered,
    said,
    sample,
    stirred,
    user,
    write,
)  # fmt: skip

TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
IMAGE = FIRST_SPECIAL
VISION = {
    "model_type": "clip_vision_model", "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "image_size": 16, "patch_size": 4, "projection_dim": 16,
}  # fmt: skip
PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 16}, "do_center_crop": True,
    "crop_size": {"height": 16, "width": 16},
}  # fmt: skip


def config(**changes):
    values = {
        "vision_config": VISION, "text_config": {"model_type": "llama", **TEXT}, "image_token_index": IMAGE, **changes,
    }  # fmt: skip
    return transformers.LlavaConfig(**values)


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    """(transformers' model, our run of its folder)."""
    folder = tmp_path_factory.mktemp("llava")
    theirs = stirred(transformers.LlavaForConditionalGeneration(config()))
    write(folder / "model", theirs, ["<image>"], TEMPLATE, preprocessor_config=PROCESSOR)
    return theirs, adopt(str(folder / "model"), folder / "run")


@pytest.fixture(scope="module")
def model(llava):
    return load_model(llava[1])[0]


SAMPLES = [
    sample(user(image(1), "What is it?")),
    sample(user(image(2), image(3, height=40), "Which is larger?")),
    sample(user("Say nothing of pictures.")),
    sample(user(image(4), "And this?"), said("a cat"), user("Really?")),
]


def plans_of(model) -> list[Plan]:
    return [model.planner.plan(one, ask=True) for one in SAMPLES]


def inputs_of(plan: Plan) -> dict:
    raws = [item.raw for item in plan.items]
    ids = torch.tensor([filled(plan, {"image": IMAGE})])
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return given | ({"pixel_values": torch.stack(raws)} if raws else {})


def test_a_plan_is_the_text_of_the_template_with_rows_for_pictures(model):
    for one, plan in zip(SAMPLES[:3], plans_of(model), strict=False):
        text = rendered(model, one).replace("<image>", "<image>" * 16)
        assert filled(plan, {"image": IMAGE}) == ids_of(model, text)


def test_an_earlier_answer_stands_as_in_the_template_and_ends_with_the_end_token_that_it_lacks(model):
    text = rendered(model, SAMPLES[3]).replace("<image>", "<image>" * 16).replace("a cat ", "a cat<|im_end|> ")
    assert filled(plans_of(model)[3], {"image": IMAGE}) == ids_of(model, text)


def test_logits_are_those_of_the_original_alone_and_in_a_mixed_batch(llava, model):
    plans = plans_of(model)
    assert_logits(llava[0], model, plans, [inputs_of(plan) for plan in plans])


def test_greedy_answers_are_those_of_generate(llava, model):
    plans = plans_of(model)
    assert_answers(llava[0], model, plans, [inputs_of(plan) for plan in plans])


@pytest.mark.parametrize("form", FORMS)
def test_a_tokenizer_that_adds_spaces_and_a_begin_gives_the_ids_of_the_processor(form, tmp_path):
    tokenizer = sentence_piece_tokenizer(form, "<image>")
    tokenizer.chat_template = TEMPLATE
    place = tokenizer.convert_tokens_to_ids("<image>")
    text = {"model_type": "llama", **TEXT, "vocab_size": len(tokenizer)}
    theirs = stirred(transformers.LlavaForConditionalGeneration(config(text_config=text, image_token_index=place)))
    write(tmp_path / "model", theirs, [], None, preprocessor_config=PROCESSOR)
    tokenizer.save_pretrained(tmp_path / "model")
    model = load_model(adopt(str(tmp_path / "model"), tmp_path / "run"))[0]
    for one, plan in zip(SAMPLES, plans_of(model), strict=True):
        text = rendered(model, one).replace("<image>", "<image>" * 16).replace("a cat ", "a cat</s> ")
        assert filled(plan, {"image": place}) == tokenizer(text)["input_ids"]
