"""Qwen2-Audio and Audio Flamingo 3 as runs: template, logits and greedy answers are those of transformers' own."""

from __future__ import annotations

import pytest
import torch
import transformers

from omniloom.checkpoint import adopt, load_model
from omniloom.sequence import Plan
from tests.published.models import (
    FIRST_SPECIAL,
    TEXT,
    assert_answers,
    assert_logits,
    filled,
    ids_of,
    rendered,
    said,
    sample,
    sound,
    stirred,
    user,
    write,
)

SPECIALS = ["<|audio_bos|>", "<|audio_eos|>", "<|AUDIO|>"]
AUDIO = FIRST_SPECIAL + 2
TEMPLATE = (
    "{% set count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nBe good.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'audio' %}{% set count.value = count.value + 1 %}"
    "Audio {{ count.value }}: <|audio_bos|><|AUDIO|><|audio_eos|>\n"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|AUDIO|>{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# A window of 1 s: 100 frames, 50 behind the convolutions.
WINDOW = 100
PROCESSOR = {
    "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 16, "chunk_length": 1, "hop_length": 160,
    "n_fft": 400, "sampling_rate": 16_000, "n_samples": 16_000, "nb_max_frames": WINDOW, "dither": 0.0,
}  # fmt: skip


TOWER = {
    "num_mel_bins": 16, "d_model": 24, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 48,
    "max_source_positions": WINDOW // 2,
}  # fmt: skip


def qwen2_audio():
    config = transformers.Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", **TOWER},
        text_config={"model_type": "qwen2", **TEXT},
        audio_token_index=AUDIO,
    )
    return transformers.Qwen2AudioForConditionalGeneration(config), TEMPLATE


def audio_flamingo3():
    config = transformers.AudioFlamingo3Config(
        audio_config={"model_type": "audioflamingo3_encoder", **TOWER},
        text_config={"model_type": "qwen2", **TEXT},
        audio_token_id=AUDIO,
    )
    return transformers.AudioFlamingo3ForConditionalGeneration(config), PLAIN


@pytest.fixture(scope="module", params=[qwen2_audio, audio_flamingo3], ids=lambda make: make.__name__)
def pair(request, tmp_path_factory):
    """(transformers' model, ours)."""
    folder = tmp_path_factory.mktemp("audio")
    theirs, template = request.param()
    write(folder / "model", stirred(theirs), SPECIALS, template, preprocessor_config=PROCESSOR)
    return theirs, load_model(adopt(str(folder / "model"), folder / "run"))[0]


SAMPLES = [
    sample(user(sound(1, 1000), "What is it?")),
    sample(user(sound(2, 130), sound(3, 260), "Which is louder?")),
    sample(user(sound(4, 300), "And this?"), said("a cat"), user(sound(5, 90), "Really?")),
    sample(user("Say nothing of sounds.")),
]


def plans_of(model) -> list[Plan]:
    return [model.planner.plan(one, ask=True) for one in SAMPLES]


def inputs_of(theirs, plan: Plan) -> dict:
    ids = torch.tensor([filled(plan, {"audio": AUDIO})])
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    raws = [item.raw for item in plan.items]
    if raws:
        frames = torch.full((len(raws), WINDOW, 16), -1.5)
        mask = torch.zeros(len(raws), WINDOW, dtype=torch.long)
        for row, raw in enumerate(raws):
            frames[row, : len(raw["frames"])] = raw["frames"]
            mask[row, : int(raw["length"])] = 1
        name = "feature_attention_mask" if theirs.config.model_type == "qwen2_audio" else "input_features_mask"
        given |= {"input_features": frames.transpose(1, 2), name: mask}
    return given


def test_a_plan_is_the_text_of_the_template_with_rows_for_sounds(pair):
    for one, plan in zip(SAMPLES, plans_of(pair[1]), strict=True):
        text = rendered(pair[1], one)
        for item in plan.items:
            text = text.replace("<|AUDIO|>", "<|done|>" * item.length, 1)
        assert filled(plan, {"audio": AUDIO}) == ids_of(pair[1], text.replace("<|done|>", "<|AUDIO|>"))


def test_sounds_of_qwen2_audio_are_numbered_through_the_conversation(pair):
    text = pair[1].planner.decode(plans_of(pair[1])[2].ids[0].tolist())
    assert ("Audio 2: " in text) == (pair[0].config.model_type == "qwen2_audio")


def test_logits_are_those_of_the_original_alone_and_in_a_mixed_batch(pair):
    theirs, model = pair
    plans = plans_of(model)
    assert_logits(theirs, model, plans, [inputs_of(theirs, plan) for plan in plans])


def test_greedy_answers_are_those_of_generate(pair):
    theirs, model = pair
    plans = plans_of(model)
    assert_answers(theirs, model, plans, [inputs_of(theirs, plan) for plan in plans])
