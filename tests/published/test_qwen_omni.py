"""Qwen2.5-Omni's thinker as a run: template, positions, logits and greedy answers are those of transformers' own."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from omniloom.checkpoint import adopt, load_model
from omniloom.data.pipeline import Pipeline
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
    sound,
    stirred,
    user,
    wave,
    write,
)
from tests.published.test_qwen_vl import PATCHES, ROPE, seen

SPECIALS = [
    "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<|vision_bos|>", "<|vision_eos|>", "<|IMAGE|>", "<|VIDEO|>",
]  # fmt: skip
IDS = {name: FIRST_SPECIAL + place for place, name in enumerate(SPECIALS)}
PLACEHOLDERS = {"audio": IDS["<|AUDIO|>"], "image": IDS["<|IMAGE|>"], "video": IDS["<|VIDEO|>"]}
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_bos|><|IMAGE|><|vision_eos|>"
    "{% elif part['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% elif part['type'] == 'video' %}<|vision_bos|><|VIDEO|><|vision_eos|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessor", "patch_size": 4, "merge_size": 2, "temporal_patch_size": 2,
    "min_pixels": 64, "max_pixels": 1024, "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 16,
    "chunk_length": 300, "hop_length": 160, "n_fft": 400, "sampling_rate": 16_000, "dither": 0.0,
}  # fmt: skip
RATE_HZ = 2.0


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(transformers' thinker, ours), from a folder laid out as the published one, with a talker in it."""
    folder = tmp_path_factory.mktemp("omni")
    vision = {"hidden_size": 24, "intermediate_size": 32, "window_size": 16, "out_hidden_size": 32}
    tower = {
        "num_mel_bins": 16, "d_model": 24, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 48,
        "max_source_positions": 50, "n_window": 10, "output_dim": 32,
    }  # fmt: skip
    config = transformers.Qwen2_5OmniThinkerConfig(
        vision_config={**PATCHES, **vision, "fullatt_block_indexes": [1]},
        audio_config=tower,
        text_config={**TEXT, **ROPE},
        audio_token_index=PLACEHOLDERS["audio"],
        image_token_index=PLACEHOLDERS["image"],
        video_token_index=PLACEHOLDERS["video"],
        audio_start_token_id=IDS["<|audio_bos|>"],
        audio_end_token_id=IDS["<|audio_eos|>"],
        vision_start_token_id=IDS["<|vision_bos|>"],
    )
    theirs = stirred(transformers.Qwen2_5OmniThinkerForConditionalGeneration(config))
    published = write(folder / "model", theirs, SPECIALS, TEMPLATE, preprocessor_config=PROCESSOR)
    tensors = {f"thinker.{name}": value for name, value in load_file(published / "model.safetensors").items()}
    tensors["talker.model.norm.weight"] = torch.ones(4)
    save_file(tensors, published / "model.safetensors", {"format": "pt"})
    thinker = json.loads((published / "config.json").read_text())
    (published / "config.json").write_text(json.dumps({"model_type": "qwen2_5_omni", "thinker_config": thinker}))
    return theirs, load_model(adopt(str(published), folder / "run"))[0]


def video(seed: int, frames: int) -> Item:
    return Item("video", clip(seed, frames, RATE_HZ))


def movie(seed: int, frames: int, milliseconds: int) -> Item:
    return Item("movie", replace(clip(seed, frames, RATE_HZ), audio=wave(seed, milliseconds)))


APART = [
    sample(user(image(1), sound(1, 730), "What is it?")),
    sample(user(video(2, 5), "and", sound(3, 250)), said("a cat"), user(image(4, height=9), "Why?")),
    sample(user(sound(5, 400), sound(6, 90))),
    sample(user("Say nothing of media.")),
]
TOGETHER = [
    sample(user(movie(1, 4, 1900), "What happens?")),
    sample(user("Before it", image(2), movie(3, 12, 5300), "and behind")),
    sample(user(movie(4, 6, 4100))),
]


def plans_of(model, samples) -> list[Plan]:
    pipeline = Pipeline(model)
    return pipeline.plans([pipeline.prepare(one) for one in samples], ask=True)


def inputs_of(plan: Plan, *, together: bool) -> dict:
    ids = torch.tensor([filled(plan, PLACEHOLDERS)])
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_audio_in_video": together}
    given |= seen(plan)
    if "video_grid_thw" in given:
        given["video_second_per_grid"] = torch.full((len(given["video_grid_thw"]),), 2 / RATE_HZ)
    raws = [item.raw for item in plan.items if item.modality == "audio"]
    if raws:
        longest = max(len(raw["frames"]) for raw in raws)
        frames, mask = torch.zeros(len(raws), longest, 16), torch.zeros(len(raws), longest, dtype=torch.long)
        for row, raw in enumerate(raws):
            frames[row, : len(raw["frames"])] = raw["frames"]
            mask[row, : int(raw["length"])] = 1
        given |= {"input_features": frames.transpose(1, 2), "feature_attention_mask": mask}
    return given


def positions_of(theirs, given: dict) -> torch.Tensor:
    mask = given.get("feature_attention_mask")
    return theirs.model.get_rope_index(
        given["input_ids"],
        given.get("image_grid_thw"),
        given.get("video_grid_thw"),
        given["attention_mask"],
        given["use_audio_in_video"],
        None if mask is None else mask.sum(1),
        given.get("video_second_per_grid"),
    )[0]


def test_frames_of_clips_have_as_many_cells_as_the_published_processor_bounds_them_to(pair):
    size, rows = transformers.Qwen2_5OmniProcessor.videos_kwargs["size"], pair[1].planner.rows
    clips, pictures = (rows[name].input.processor for name in ("video", "image"))
    cells = [bound // (4 * 2) ** 2 for bound in (clips.least_px, clips.most_px)]
    assert cells == [size[side] // 28**2 for side in ("shortest_edge", "longest_edge")] == [128, 768]
    assert (pictures.least_px, pictures.most_px) == (64, 1024)


def test_a_plan_is_the_text_of_the_template_with_rows_for_media(pair):
    for one, plan in zip(APART, plans_of(pair[1], APART), strict=True):
        text = rendered(pair[1], one)
        for item in plan.items:
            token = f"<|{item.modality.upper()}|>"
            text = text.replace(token, "<|done|>" * item.length, 1)
        ids = ids_of(pair[1], text.replace("<|done|>", "<|IMAGE|>"))
        assert filled(plan, dict.fromkeys(PLACEHOLDERS, PLACEHOLDERS["image"])) == ids


def test_a_clip_with_its_sound_has_both_beginnings_chunks_of_two_seconds_and_both_ends(pair):
    plan = plans_of(pair[1], TOGETHER[2:])[0]
    video, audio = PLACEHOLDERS["video"], PLACEHOLDERS["audio"]
    frame = next(item.shape.grid[1] * item.shape.grid[2] for item in plan.items if item.modality == "video")
    # 6 frames at 2 Hz are grids at 0, 1 and 2 s; 4.1 s of sound are 102 rows, 50 in each chunk.
    rows = [video] * 2 * frame + [audio] * 50 + [video] * frame + [audio] * 50 + [audio] * 2
    around = [IDS[name] for name in ("<|vision_bos|>", "<|audio_bos|>", "<|audio_eos|>", "<|vision_eos|>")]
    expected = [*around[:2], *rows, *around[2:]]
    ids = filled(plan, PLACEHOLDERS)
    first = ids.index(around[0])
    assert ids[first : first + len(expected)] == expected


@pytest.mark.parametrize("samples", [APART, TOGETHER], ids=["apart", "together"])
def test_positions_are_those_of_the_original(pair, samples):
    for plan in plans_of(pair[1], samples):
        given = inputs_of(plan, together=samples is TOGETHER)
        assert torch.equal(positions_of(pair[0], given), plan.position)


@pytest.mark.parametrize("samples", [APART, TOGETHER], ids=["apart", "together"])
def test_logits_are_those_of_the_original_alone_and_in_a_mixed_batch(pair, samples):
    theirs, model = pair
    plans = plans_of(model, samples)
    assert_logits(theirs, model, plans, [inputs_of(plan, together=samples is TOGETHER) for plan in plans])


def test_greedy_answers_are_those_of_generate(pair):
    theirs, model = pair
    for together, samples in ((False, APART), (True, TOGETHER)):
        plans = plans_of(model, samples)
        assert_answers(theirs, model, plans, [inputs_of(plan, together=together) for plan in plans], max_new=6)
