"""From files to logits: transformers' own processor and model on one side, our run on the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from omniloom.checkpoint import adopt, load_model
from omniloom.model import OmniModel
from omniloom.sequence import Sample
from omniloom.testing.doubles import tiny_tokenizer
from tests.planner.sentence_pieces import sentence_piece_tokenizer
from tests.published.models import TEXT, image, logits_of, messages, sample, sound, stirred, user
from tests.published.test_blip import QFORMER, QUERIES, parts
from tests.published.test_llava import TEMPLATE, VISION
from tests.published.test_llava_tiles import INST, PINPOINTS
from tests.published.test_qwen_audio import TEMPLATE as AUDIO_TEMPLATE
from tests.published.test_qwen_audio import WINDOW

SIDE = {"height": 16, "width": 16}
SEEN = [
    sample(user(image(1), "What is it?")),
    sample(user(image(2, height=15, width=4), "Really?")),
]
HEARD = [
    sample(user(sound(1, 730), "What is it?")),
    sample(user(sound(2, 130), sound(3, 260), "Really?")),
]


def llama(tokenizer) -> dict:
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    ids = {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": end, "vocab_size": len(tokenizer)}
    return {**TEXT, **ids}


def token_of(tokenizer, text: str) -> int:
    return int(tokenizer.convert_tokens_to_ids(text))


def llava(form):
    tokenizer = sentence_piece_tokenizer(form, "<image>")
    processor = transformers.LlavaProcessor(
        transformers.CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=SIDE),
        tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    config = transformers.LlavaConfig(
        vision_config=VISION,
        text_config={"model_type": "llama", **llama(tokenizer)},
        image_token_index=token_of(tokenizer, "<image>"),
    )
    return transformers.LlavaForConditionalGeneration(config), processor


def llava_next(form):
    tokenizer = sentence_piece_tokenizer(form, "<image>")
    images = transformers.LlavaNextImageProcessorPil(
        size={"shortest_edge": 16}, crop_size=SIDE, image_grid_pinpoints=PINPOINTS
    )
    processor = transformers.LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=INST,
    )
    config = transformers.LlavaNextConfig(
        vision_config=VISION,
        text_config={"model_type": "mistral", **llama(tokenizer), "sliding_window": None},
        image_token_index=token_of(tokenizer, "<image>"),
        image_grid_pinpoints=PINPOINTS,
    )
    return transformers.LlavaNextForConditionalGeneration(config), processor


def instructblip(form):
    tokenizer = sentence_piece_tokenizer(form, "<image>")
    processor = transformers.InstructBlipProcessor(
        transformers.BlipImageProcessorPil(size=SIDE), tokenizer, tiny_tokenizer(), num_query_tokens=QUERIES
    )
    text = {"model_type": "llama", **llama(tokenizer)}
    options = {**parts(text), "qformer_config": QFORMER, "image_token_index": token_of(tokenizer, "<image>")}
    config = transformers.InstructBlipConfig(**options)
    return transformers.InstructBlipForConditionalGeneration(config), processor


def qwen2_audio(form):
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]})
    sounds = transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=1)
    processor = transformers.Qwen2AudioProcessor(sounds, tokenizer, chat_template=AUDIO_TEMPLATE)
    tower = {
        "num_mel_bins": 16, "d_model": 24, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 48,
        "max_source_positions": WINDOW // 2,
    }  # fmt: skip
    config = transformers.Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", **tower},
        text_config={"model_type": "qwen2", **TEXT},
        audio_token_index=token_of(tokenizer, "<|AUDIO|>"),
    )
    return transformers.Qwen2AudioForConditionalGeneration(config), processor


CASES = [(make, form) for make in (llava, llava_next, instructblip) for form in ("first", "always")]
CASES.append((qwen2_audio, ""))


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0].__name__} {case[1]}")
def pair(request, tmp_path_factory):
    """(transformers' model, its processor, ours), all from one folder that they saved themselves."""
    make, form = request.param
    folder = tmp_path_factory.mktemp("published")
    theirs, processor = make(form)
    stirred(theirs)
    theirs.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    theirs.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    return theirs, processor, load_model(adopt(str(folder / "model"), folder / "run"))[0]


def inputs_of(processor, one: Sample) -> dict:
    payloads = [item.payload for _, item in one.items()]
    if "Audio" in type(processor).__name__:
        text = processor.apply_chat_template(messages(one), tokenize=False, add_generation_prompt=True)
        sounds = [np.asarray(payload.samples[0]) for payload in payloads]
        return processor(text=text, audio=sounds, sampling_rate=16_000, return_tensors="pt")
    images = [payload.pixels for payload in payloads]
    if processor.chat_template is None:
        return processor(text=one.turns[0].text, images=images, return_tensors="pt")
    text = processor.apply_chat_template(messages(one), tokenize=False, add_generation_prompt=True)
    return processor(text=text, images=images, return_tensors="pt")


@torch.no_grad()
def test_the_same_files_and_words_give_the_same_logits(pair):
    theirs, processor, model = pair
    samples: list[Sample] = HEARD if "Audio" in type(processor).__name__ else SEEN
    assert isinstance(model, OmniModel)
    for one in samples:
        plan = model.planner.plan(one, ask=True)
        expected = theirs(**inputs_of(processor, one)).logits[0]
        ours = logits_of(model, plan)[0]
        assert ours.shape == expected.shape
        torch.testing.assert_close(ours, expected, atol=2e-4, rtol=0)
