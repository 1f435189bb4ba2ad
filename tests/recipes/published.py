"""The published models of the recipe as folders: their true configurations, at their true sizes or a handful of units.

Sizes are those of the models' own config.json; tokenizer is the byte-level double with Qwen3's turns.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PretrainedConfig, Qwen3Config, SiglipConfig, WhisperConfig
from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM
from transformers.models.siglip.modeling_siglip import SiglipModel
from transformers.models.whisper.modeling_whisper import WhisperForConditionalGeneration

from omniloom.testing.doubles import tiny_tokenizer

QWEN3 = dict(
    hidden_size=1024, num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, head_dim=128,
    intermediate_size=3072, vocab_size=151_936, max_position_embeddings=40_960, tie_word_embeddings=True,
    rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0}, rms_norm_eps=1e-6,
    bos_token_id=151_643, eos_token_id=151_645,
)  # fmt: skip
SIGLIP = dict(
    hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072, image_size=224, patch_size=16
)
WHISPER = dict(
    d_model=768, encoder_layers=12, encoder_attention_heads=12, encoder_ffn_dim=3072, decoder_layers=12,
    decoder_attention_heads=12, decoder_ffn_dim=3072, num_mel_bins=80, max_source_positions=1500,
    max_target_positions=448, vocab_size=51_865,
)  # fmt: skip

# The same classes, small enough to train in a second; the tokenizer double has 259 ids.
TINY_QWEN3 = {
    **QWEN3,
    **dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8),
    **dict(intermediate_size=64, vocab_size=260, bos_token_id=0, eos_token_id=2),
}
TINY_SIGLIP = {**SIGLIP, **dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64)}
TINY_WHISPER = {
    **WHISPER,
    **dict(d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=64, decoder_layers=1),
    **dict(decoder_attention_heads=2, decoder_ffn_dim=64, vocab_size=51_865),
}

IMAGE_PROCESSOR = {
    "image_processor_type": "SiglipImageProcessor",
    "processor_class": "SiglipProcessor",
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 224, "width": 224},
}
SOUND_PROCESSOR = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "processor_class": "WhisperProcessor",
    "chunk_length": 30,
    "feature_size": 80,
    "hop_length": 160,
    "n_fft": 400,
    "n_samples": 480_000,
    "nb_max_frames": 3000,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": False,
    "sampling_rate": 16_000,
}

# Qwen3's turns without tools: a thought, empty where there is none, opens only what is said after the last question.
QWEN3_TURNS = """\
{%- if messages[0].role == 'system' %}{{ '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{% endif %}
{%- set last = namespace(question=messages|length - 1, is_open=true) %}
{%- for message in messages[::-1] %}
    {%- if last.is_open and message.role == 'user' %}
        {%- set last.question = messages|length - 1 - loop.index0 %}
        {%- set last.is_open = false %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set said = message.content.split('</think>')[-1].lstrip('\n') %}
        {%- set thought = '' %}
        {%- if '</think>' in message.content %}
            {%- set thought = message.content.split('</think>')[0].split('<think>')[-1].strip('\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\n' }}
        {%- if loop.index0 > last.question and (loop.last or thought) %}
            {{- '<think>\n' + thought + '\n</think>\n\n' }}
        {%- endif %}
        {{- said + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}
{%- endif %}"""


def qwen3_tokenizer() -> Any:
    """The byte-level double with Qwen3's turns."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = QWEN3_TURNS
    return tokenizer


def write_models(folder: Path, *, tiny: bool) -> list[str]:
    """The three folders of the recipe's ids; returns what `--set` takes to read them instead of the hub.

    `tiny` writes small models with random weights; otherwise true configurations and nothing else.
    """
    language = Qwen3Config(**(TINY_QWEN3 if tiny else QWEN3), architectures=["Qwen3ForCausalLM"])
    vision = SiglipConfig(
        vision_config=TINY_SIGLIP if tiny else SIGLIP,
        text_config=dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=99),
    )
    sound = WhisperConfig(**(TINY_WHISPER if tiny else WHISPER), architectures=["WhisperForConditionalGeneration"])
    for name, config, kind in (
        ("language", language, Qwen3ForCausalLM),
        ("vision", vision, SiglipModel),
        ("sound", sound, WhisperForConditionalGeneration),
    ):
        _write(folder / name, config, kind if tiny else None)
    eos = language.eos_token_id
    GenerationConfig(bos_token_id=language.bos_token_id, eos_token_id=eos).save_pretrained(folder / "language")
    qwen3_tokenizer().save_pretrained(folder / "language")
    (folder / "vision" / "preprocessor_config.json").write_text(json.dumps(IMAGE_PROCESSOR))
    (folder / "sound" / "preprocessor_config.json").write_text(json.dumps(SOUND_PROCESSOR))
    return [
        f"backbone.id={folder / 'language'}",
        *(f"modalities.image.in.{place}.id={folder / 'vision'}" for place in ("processor", "encoder")),
        *(f"modalities.speech.in.{place}.id={folder / 'sound'}" for place in ("processor", "encoder")),
    ]


def _write(folder: Path, config: PretrainedConfig, kind: Any) -> None:
    if kind is None:
        config.save_pretrained(folder)
    else:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            kind(config).save_pretrained(folder)
