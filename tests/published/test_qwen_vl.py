"""Qwen2-VL and Qwen2.5-VL as runs: template, positions, logits and greedy answers are those of transformers' own."""

from __future__ import annotations

import pytest
import torch
import transformers

from omniloom.checkpoint import adopt, load_model
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
    logits_of,
    rendered,
    said,
    sample,
    stirred,
    user,
    write,
)

SPECIALS = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
IMAGE, VIDEO = FIRST_SPECIAL + 2, FIRST_SPECIAL + 3
PLACEHOLDERS = {"image": IMAGE, "video": VIDEO}
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}}
PATCHES = {"patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "depth": 2, "num_heads": 2}
PROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessor", "patch_size": 4, "merge_size": 2, "temporal_patch_size": 2,
    "min_pixels": 64, "max_pixels": 1024,
}  # fmt: skip
RATE_HZ = 2.0


def qwen2_5_vl():
    vision = {"hidden_size": 24, "intermediate_size": 32, "window_size": 16, "out_hidden_size": 32}
    config = transformers.Qwen2_5_VLConfig(
        vision_config={**PATCHES, **vision, "fullatt_block_indexes": [1], "tokens_per_second": 4},
        text_config={**TEXT, **ROPE},
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=FIRST_SPECIAL,
        vision_end_token_id=FIRST_SPECIAL + 1,
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config)


def qwen2_vl():
    config = transformers.Qwen2VLConfig(
        vision_config={**PATCHES, "embed_dim": 24, "hidden_size": 32, "mlp_ratio": 2},
        text_config={**TEXT, **ROPE},
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=FIRST_SPECIAL,
        vision_end_token_id=FIRST_SPECIAL + 1,
    )
    return transformers.Qwen2VLForConditionalGeneration(config)


@pytest.fixture(scope="module", params=[qwen2_vl, qwen2_5_vl], ids=lambda make: make.__name__)
def pair(request, tmp_path_factory):
    """(transformers' model, ours)."""
    folder = tmp_path_factory.mktemp("qwen")
    theirs = stirred(request.param())
    write(folder / "model", theirs, SPECIALS, TEMPLATE, preprocessor_config=PROCESSOR)
    return theirs, load_model(adopt(str(folder / "model"), folder / "run"))[0]


def video(seed: int, frames: int) -> Item:
    return Item("video", clip(seed, frames, RATE_HZ))


SAMPLES = [
    sample(user(image(1), "What is it?")),
    sample(user("Compare", image(2, height=8, width=36), "with", image(3, height=40, width=9))),
    sample(user(video(4, 5), "What happens?"), said("a cat"), user(image(5), "Is it this one?")),
    sample(user("Say nothing of pictures.")),
    sample(user(video(9, 4), image(6), video(7, 2))),
]


def plans_of(model) -> list[Plan]:
    return [model.planner.plan(one, ask=True) for one in SAMPLES]


def patches_of(raw: torch.Tensor) -> torch.Tensor:
    """(F, 3, Y, X) as transformers' processors write it: merged cells behind one another."""
    frames, _, height, width = raw.shape
    cut = raw.reshape(frames // 2, 2, 3, height // 8, 2, 4, width // 8, 2, 4)
    return cut.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(frames // 2 * height * width // 16, -1)


def seen(plan: Plan) -> dict:
    """The pictures and clips of a plan as the models of the family take them."""
    given = {}
    for name, pixels, grid in (
        ("image", "pixel_values", "image_grid_thw"),
        ("video", "pixel_values_videos", "video_grid_thw"),
    ):
        raws = [item.raw for item in plan.items if item.modality == name]
        if raws:
            given[pixels] = torch.cat([patches_of(raw) for raw in raws])
            given[grid] = torch.tensor([[len(raw) // 2, raw.shape[2] // 4, raw.shape[3] // 4] for raw in raws])
    return given


def inputs_of(plan: Plan) -> dict:
    ids = torch.tensor([filled(plan, PLACEHOLDERS)])
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **seen(plan)}
    given["mm_token_type_ids"] = (ids == IMAGE).int() + 2 * (ids == VIDEO).int()
    clips = sum(item.modality == "video" for item in plan.items)
    return given | ({"second_per_grid_ts": torch.full((clips,), 2 / RATE_HZ)} if clips else {})


def accepted(theirs, given: dict) -> dict:
    """Qwen2-VL counts frames and takes no seconds."""
    if theirs.config.model_type == "qwen2_vl":
        return {name: value for name, value in given.items() if name != "second_per_grid_ts"}
    return given


def test_a_plan_is_the_text_of_the_template_with_rows_for_media(pair):
    for one, plan in zip(SAMPLES, plans_of(pair[1]), strict=True):
        text = rendered(pair[1], one)
        for item in plan.items:
            token = f"<|{item.modality}_pad|>"
            text = text.replace(token, "<|done|>" * item.length, 1)
        ids = ids_of(pair[1], text.replace("<|done|>", "<|image_pad|>"))
        assert filled(plan, {"image": IMAGE, "video": IMAGE}) == ids


def test_positions_are_those_of_the_original(pair):
    for plan in plans_of(pair[1]):
        given = accepted(pair[0], inputs_of(plan))
        if plan.items:
            named = {name: value for name, value in given.items() if not name.startswith("pixel")}
            assert torch.equal(pair[0].model.get_rope_index(**named)[0], plan.position)


def test_logits_are_those_of_the_original_alone_packed_and_in_a_mixed_batch(pair):
    theirs, model = pair
    plans = plans_of(model)
    expected = assert_logits(theirs, model, plans, [accepted(theirs, inputs_of(plan)) for plan in plans])
    packed = logits_of(model, Plan.join([plans]))[0]
    torch.testing.assert_close(packed, torch.cat(expected), atol=1e-4, rtol=0)


def test_greedy_answers_are_those_of_generate(pair):
    theirs, model = pair
    plans = plans_of(model)
    assert_answers(theirs, model, plans, [accepted(theirs, inputs_of(plan)) for plan in plans])
