"""LLaVA-NeXT and LLaVA-OneVision as runs: template, rows, logits and greedy answers are those of transformers' own."""

from __future__ import annotations

import pytest
import torch
import transformers

from omniloom.api import Omni
from omniloom.checkpoint import adopt, load_model
from omniloom.data.engine import Engine
from omniloom.sequence import Item, Plan
from tests.published.models import (
    FIRST_SPECIAL,
    TEXT,
    assert_answers,
    assert_logits,
    clip,
    filled,
    ids_of,
    image,
    rendered,
    said,
    sample,
    stirred,
    user,
    write,
)
from tests.published.test_llava import VISION

IMAGE, VIDEO = FIRST_SPECIAL, FIRST_SPECIAL + 1
PLACEHOLDERS = {"image": IMAGE, "images": IMAGE, "video": VIDEO}
PINPOINTS = [[16, 32], [32, 16], [32, 32], [48, 16], [16, 48]]
PROCESSOR = {"size": {"height": 16, "width": 16}, "image_grid_pinpoints": PINPOINTS}
INST = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ '<<SYS>>\n' + message['content'][0]['text'] + '\n<</SYS>>\n\n' }}{% elif message['role'] == 'user' %}"
    "{{ '[INST] ' }}{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{{ ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'][0]['text'] + eos_token + ' ' }}{% endif %}{% endfor %}"
)
LINES = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'video' %}{{ '<video>' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ '\n' + part['text'] }}{% endfor %}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SIGLIP = {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False}
del SIGLIP["projection_dim"]


def llava_next(folder):
    config = transformers.LlavaNextConfig(
        vision_config=VISION,
        text_config={"model_type": "mistral", **TEXT, "sliding_window": None},
        image_token_index=IMAGE,
        image_grid_pinpoints=PINPOINTS,
    )
    theirs = stirred(transformers.LlavaNextForConditionalGeneration(config))
    kind = {"image_processor_type": "LlavaNextImageProcessor"}
    write(folder, theirs, ["<image>"], INST, preprocessor_config={**PROCESSOR, **kind})
    return theirs


def llava_onevision(folder):
    config = transformers.LlavaOnevisionConfig(
        vision_config=SIGLIP,
        text_config={"model_type": "qwen2", **TEXT},
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_grid_pinpoints=PINPOINTS,
        vision_aspect_ratio="anyres_max_2",
    )
    theirs = stirred(transformers.LlavaOnevisionForConditionalGeneration(config))
    write(
        folder,
        theirs,
        ["<image>", "<video>"],
        LINES,
        preprocessor_config={**PROCESSOR, "image_processor_type": "LlavaOnevisionImageProcessor"},
        video_preprocessor_config={**PROCESSOR, "video_processor_type": "LlavaOnevisionVideoProcessor"},
    )
    return theirs


SAMPLES = {
    llava_next: [
        sample(user(image(1), "What is it?")),
        sample(user(image(2, height=50, width=10), image(3, height=18), "Which is larger?")),
        sample(user("Say nothing of pictures.")),
        sample(user(image(4), "And this?"), said("a cat"), user("Really?")),
    ],
    llava_onevision: [
        sample(user(image(1), "What is it?")),
        sample(user(image(5, height=33, width=30), "And what is this?")),
        sample(user(image(2, "images", height=50, width=10), image(3, "images"), "Which is larger?")),
        sample(user(Item("video", clip(4, 3)), "What happens?")),
        sample(user("Say nothing of pictures.")),
    ],
}


@pytest.fixture(scope="module", params=[llava_next, llava_onevision], ids=lambda make: make.__name__)
def pair(request, tmp_path_factory):
    """(transformers' model, ours, samples)."""
    folder = tmp_path_factory.mktemp("llava")
    theirs = request.param(folder / "model")
    model = load_model(adopt(str(folder / "model"), folder / "run"))[0]
    return theirs, model, SAMPLES[request.param]


def plans_of(model, samples) -> list[Plan]:
    return [model.planner.plan(one, ask=True) for one in samples]


def inputs_of(plan: Plan, one) -> dict:
    ids = torch.tensor([filled(plan, PLACEHOLDERS)])
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    payloads = [item.payload for _, item in one.items()]
    raws = [item.raw for item in plan.items if item.modality == "image"]
    if raws:
        tiles = max(len(raw["pixels"]) for raw in raws)
        pixels = torch.zeros(len(raws), tiles, 3, 16, 16)
        for row, raw in enumerate(raws):
            pixels[row, : len(raw["pixels"])] = raw["pixels"]
        given |= {"pixel_values": pixels, "image_sizes": torch.tensor([item.pixels.shape[:2] for item in payloads])}
    wholes = [item.raw for item in plan.items if item.modality == "images"]
    if wholes:
        given |= {
            "pixel_values": torch.stack(wholes)[:, None],
            "image_sizes": torch.tensor([item.pixels.shape[:2] for item in payloads]),
            "batch_num_images": torch.tensor([len(wholes)]),
        }
    clips = [item.raw for item in plan.items if item.modality == "video"]
    return given | ({"pixel_values_videos": torch.stack(clips)} if clips else {})


def test_a_plan_is_the_text_of_the_template_with_rows_for_media(pair):
    _, model, samples = pair
    for one, plan in zip(samples, plans_of(model, samples), strict=True):
        text = rendered(model, one.map_items(lambda _, item: Item(item.modality.removesuffix("s"), item.payload)))
        for item in plan.items:
            token = f"<{item.modality.removesuffix('s')}>"
            text = text.replace(token, "<|done|>" * item.length, 1)
        expected = ids_of(model, text.replace("<|done|>", "<image>"))
        assert filled(plan, dict.fromkeys(PLACEHOLDERS, IMAGE)) == expected


def test_logits_are_those_of_the_original_alone_and_in_a_mixed_batch(pair):
    theirs, model, samples = pair
    plans = plans_of(model, samples)
    assert_logits(theirs, model, plans, list(map(inputs_of, plans, samples)))


def test_greedy_answers_are_those_of_generate(pair):
    theirs, model, samples = pair
    plans = plans_of(model, samples)
    assert_answers(theirs, model, plans, list(map(inputs_of, plans, samples)))


def test_a_picture_without_a_name_is_given_to_the_row_of_its_kinds_name(pair):
    omni = Omni(Engine(pair[1]), None)
    assert omni.turns([image(1).payload, "What?"])[0].parts[0].modality == "image"
