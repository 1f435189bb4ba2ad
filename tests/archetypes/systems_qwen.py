"""Systems with positions of their own: pictures at native size, sound and frames of a clip on one clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import transformers

from tests.archetypes.blocks import SHORT, awake, row
from tests.archetypes.harness import Archetype, save_tokenizer

TEXT = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 8}
VISION = {"patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "depth": 2, "num_heads": 2}
HEARING = {
    "num_mel_bins": 16,
    "d_model": 16,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "max_source_positions": 50,
    "output_dim": 32,
}
PROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "patch_size": 4,
    "merge_size": 2,
    "temporal_patch_size": 2,
    "min_pixels": 64,
    "max_pixels": 320,
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": 16,
    "chunk_length": 300,
}
WHOLE = "./language-model"
TOWER = {"tower": {"room": "encoders", "type": "native_vision", "id": WHOLE}}
PICTURE = {"type": "native_image", "id": WHOLE}
CLIP = {"type": "native_image", "id": WHOLE, "frames": 8, "rate_hz": 2.0}
HEARD = {"type": "hub", "id": WHOLE, "medium": "audio", "lengths": True}


def _written(make: Callable[[], Any], folder: Path) -> None:
    """A whole tiny model with its tokenizer and its processors' file."""
    model = make()
    awake(model)
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    save_tokenizer(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))


def _qwen2_vl() -> Any:
    vision = {**VISION, "embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2}
    return transformers.Qwen2VLForConditionalGeneration(
        transformers.Qwen2VLConfig(vision_config=vision, text_config=TEXT)
    )


def _qwen2_audio() -> Any:
    config = transformers.Qwen2AudioConfig(
        audio_config={**HEARING, "max_source_positions": 20}, text_config={"model_type": "qwen2", **TEXT}
    )
    return transformers.Qwen2AudioForConditionalGeneration(config)


def _qwen2_5_omni() -> Any:
    vision = {**VISION, "hidden_size": 16, "intermediate_size": 24, "window_size": 16, "out_hidden_size": 32}
    config = transformers.Qwen2_5OmniThinkerConfig(
        vision_config={**vision, "fullatt_block_indexes": [1]},
        audio_config={**HEARING, "n_window": 10},
        text_config=TEXT,
    )
    return transformers.Qwen2_5OmniThinkerForConditionalGeneration(config)


def _qwen3_omni() -> Any:
    vision = {**VISION, "hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 32}
    config = transformers.Qwen3OmniMoeThinkerConfig(
        vision_config={**vision, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]},
        audio_config={**HEARING, "downsample_hidden_size": 4},
        text_config={**TEXT, **EXPERTS, "num_hidden_layers": 3},
    )
    return transformers.Qwen3OmniMoeThinkerForConditionalGeneration(config)


def _seen(merger: dict[str, Any]) -> dict[str, Any]:
    """Components of pictures and frames: one tower, one merger."""
    return {**TOWER, "merger": {"room": "projectors", **merger}}


def _row(payload: str, processor: dict[str, Any]) -> dict[str, Any]:
    return row(payload, processor, {"component": "tower"}, {"component": "merger"})


SYSTEMS = [
    Archetype(
        "Qwen2-VL",
        "pictures and clips at native size, four patches merged into one, positions of time, height and width, "
        "Qwen2-VL (arXiv:2409.12191)",
        {
            "context": {"positions": "mrope"},
            "components": _seen({"type": "merge"}),
            "modalities": {"image": _row("image", PICTURE), "clip": _row("video", CLIP)},
        },
        asks=[("image",), ("clip",), ("image", "clip")],
        forms={"clip": {"frames": 2}},
        train=["*"],
        backbone=partial(_written, _qwen2_vl),
    ),
    Archetype(
        "Qwen2.5-Omni",
        "two seconds of frames, then two of sound, on one clock of positions, Qwen2.5-Omni (arXiv:2503.20215); "
        "the talker is not part of this",
        {
            "context": {"positions": "tmrope", "interleave": {"type": "chunks", "every_s": 2.0}},
            "components": _seen({"type": "merge", "norm": "rms"}),
            "modalities": {
                "image": _row("image", PICTURE),
                "frames": _row("video", CLIP),
                "sound": row("audio", HEARD, {"type": "qwen_audio", "id": WHOLE}, "linear"),
                "clip": {"payload": "video", "split": ["frames", "sound"]},
            },
        },
        asks=[("clip",), ("image",), ("sound",)],
        forms={"clip": {"frames": 2, "sound": True}, "sound": SHORT},
        train=["*"],
        backbone=partial(_written, _qwen2_5_omni),
    ),
    Archetype(
        "Qwen3-Omni",
        "inner layers of the vision tower added behind the first layers of a mixture of experts, sound twelve and "
        "a half rows a second, Qwen3-Omni (arXiv:2509.17765); the talker is not part of this",
        {
            "context": {"positions": {"type": "tmrope", "rate_hz": 12.5}},
            "adapters": {
                "stack": {
                    "type": "deepstack",
                    "inputs": ["image", "frames"],
                    "taps": {0: 1, 1: 2},
                    "projector": {"type": "merge", "norm_at": "merged"},
                }
            },
            "components": {
                "tower": {"room": "encoders", "type": "native_vision", "id": WHOLE, "taps": "deepstack"},
                "merger": {"room": "projectors", "type": "merge"},
            },
            "modalities": {
                "image": _row("image", PICTURE),
                "frames": _row("video", CLIP),
                "sound": row("audio", HEARD, {"type": "qwen_audio", "id": WHOLE}, {"type": "mlp", "norm": False}),
                "clip": {"payload": "video", "split": ["frames", "sound"]},
            },
        },
        asks=[("clip",), ("image",), ("sound",)],
        forms={"clip": {"frames": 2, "sound": True}, "sound": SHORT},
        train=["*"],
        backbone=partial(_written, _qwen3_omni),
    ),
    Archetype(
        "Qwen2-Audio",
        "Whisper's layers, rows averaged in pairs, one linear map, Qwen2-Audio (arXiv:2407.10759)",
        {"modalities": {"sound": row("audio", HEARD, {"type": "qwen_audio", "id": WHOLE}, "linear")}},
        asks=[("sound",), ("sound", "sound")],
        forms={"sound": SHORT},
        backbone=partial(_written, _qwen2_audio),
    ),
]
