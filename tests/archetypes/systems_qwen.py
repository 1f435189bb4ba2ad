"""Systems with positions of their own: pictures at native size, sound and frames of a clip on one clock."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import transformers
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import Qwen3OmniMoeThinkerForConditionalGeneration

from tests.archetypes.blocks import SHORT, hub, row, tiny
from tests.archetypes.harness import Archetype, save_tokenizer

_TEXT = {
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
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
}
_VISION = {"patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "depth": 2, "num_heads": 2}
_PIXELS = {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2, "min_pixels": 64, "max_pixels": 320}


def qwen2_vl(folder: Path) -> None:
    """A whole tiny Qwen2-VL, its tokenizer and processor."""
    config = transformers.Qwen2VLConfig(
        vision_config={**_VISION, "embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2}, text_config=_TEXT
    )
    _save(transformers.Qwen2VLForConditionalGeneration(config), folder)


def _save(model: Any, folder: Path) -> None:
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    save_tokenizer(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "Qwen2VLImageProcessor", **_PIXELS})
    )
