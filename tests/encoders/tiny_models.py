"""Tiny random instances of the real classes of published encoders, saved as published ones are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel
from transformers.models.phi4_multimodal.configuration_phi4_multimodal import Phi4MultimodalAudioConfig
from transformers.models.phi4_multimodal.modeling_phi4_multimodal import Phi4MultimodalAudioModel
from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniAudioEncoderConfig
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniAudioEncoder
from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import Qwen3OmniMoeAudioEncoderConfig
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import Qwen3OmniMoeAudioEncoder

__all__ = ["PROCESSORS", "TINY", "WAVE", "save_tiny_model"]

_VISION = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
_TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
WAVE = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "conv_dim": (8, 8),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 30,
}
# A row each 160 samples.
_EACH_10_MS = {
    "conv_dim": (8, 8, 8),
    "conv_kernel": (20, 8, 8),
    "conv_stride": (10, 4, 4),
    "num_feat_extract_layers": 3,
}
_AST = {"patch_size": 8, "frequency_stride": 6, "time_stride": 5, "max_length": 24, "num_mel_bins": 16}
_HTSAT = {
    "window_size": 2,
    "num_mel_bins": 8,
    "spec_size": 32,
    "patch_embeds_hidden_size": 8,
    "hidden_size": 16,
    "depths": (2, 1),
    "num_attention_heads": (1, 2),
    "aff_block_r": 2,
    "enable_fusion": True,
}
_PHI = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_blocks": 1,
    "num_attention_heads": 2,
    "ext_pw_out_channel": 16,
    "depthwise_separable_out_channel": 16,
    "nemo_conv_channels": 8,
    "input_size": 16,
    "bias_max_distance": 5,
}
_QWEN = {
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "num_mel_bins": 8,
    "max_source_positions": 20,
}
_WHISPER = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "vocab_size": 60,
    "num_mel_bins": 8,
    "max_source_positions": 20,
    "pad_token_id": 1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
}
# Patches of one pixel: raw tensors and rows are then on one grid.
_PIXELS = {"depth": 2, "num_heads": 2, "hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 24}
_PIXELS |= {"patch_size": 1, "temporal_patch_size": 1}


def _ast() -> PreTrainedModel:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = transformers.ASTForAudioClassification(transformers.ASTConfig(**sizes, **_AST))
    for name, value in model.named_parameters():
        if "token" in name or "position" in name:  # zeros when made, so that a class token asks for nothing
            torch.nn.init.normal_(value)
    return model


def _clip() -> transformers.CLIPConfig:
    return transformers.CLIPConfig(vision_config={**_VISION, "intermediate_size": 32}, text_config=_TEXT)


def _siglip() -> transformers.SiglipConfig:
    return transformers.SiglipConfig(vision_config={**_VISION, "intermediate_size": 32}, text_config=_TEXT)


def _siglip2() -> transformers.Siglip2Config:
    vision = {name: value for name, value in _VISION.items() if name != "image_size"}
    vision |= {"intermediate_size": 32, "num_patches": 4}
    return transformers.Siglip2Config(vision_config=vision, text_config=_TEXT)


def _qwen2_5_vl() -> PreTrainedModel:
    text = {**_TEXT, "num_key_value_heads": 2, "head_dim": 8}
    vision = {**_PIXELS, "window_size": 4, "fullatt_block_indexes": [1]}
    return transformers.Qwen2_5_VLForConditionalGeneration(
        transformers.Qwen2_5_VLConfig(vision_config=vision, text_config=text)
    )


def _qwen3_vl() -> PreTrainedModel:
    text = {**_TEXT, "num_key_value_heads": 2, "head_dim": 8}
    vision = {**_PIXELS, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    return transformers.Qwen3VLForConditionalGeneration(
        transformers.Qwen3VLConfig(vision_config=vision, text_config=text)
    )


TINY: dict[str, Callable[[], PreTrainedModel]] = {
    "clip": lambda: transformers.CLIPModel(_clip()),
    "clip_vision": lambda: transformers.CLIPVisionModel(_clip().vision_config),
    "siglip": lambda: transformers.SiglipModel(_siglip()),
    "siglip2": lambda: transformers.Siglip2Model(_siglip2()),
    "dinov2": lambda: transformers.Dinov2Model(transformers.Dinov2Config(**_VISION)),
    "registers": lambda: transformers.Dinov2WithRegistersModel(
        transformers.Dinov2WithRegistersConfig(**_VISION, num_register_tokens=3)
    ),
    "vit": lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**_VISION, intermediate_size=32)),
    "whisper": lambda: transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**_WHISPER)),
    "wav2vec2": lambda: transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(**WAVE)),
    "hubert": lambda: transformers.HubertModel(transformers.HubertConfig(**WAVE)),
    "hubert_10ms": lambda: transformers.HubertModel(transformers.HubertConfig(**WAVE | _EACH_10_MS)),
    "qwen2_5_vl": _qwen2_5_vl,
    "videomae": lambda: transformers.VideoMAEModel(transformers.VideoMAEConfig(**_VISION, num_frames=4)),
    "timesformer": lambda: transformers.TimesformerModel(transformers.TimesformerConfig(**_VISION, num_frames=4)),
    "vivit": lambda: transformers.VivitModel(transformers.VivitConfig(**_VISION, num_frames=4, tubelet_size=[2, 8, 8])),
    "qwen3_vl": _qwen3_vl,
    "conformer": lambda: transformers.Wav2Vec2ConformerModel(transformers.Wav2Vec2ConformerConfig(**WAVE)),
    "conformer_10ms": lambda: transformers.Wav2Vec2ConformerModel(
        transformers.Wav2Vec2ConformerConfig(**WAVE | _EACH_10_MS)
    ),
    "ast": _ast,
    "clap": lambda: transformers.ClapModel(
        transformers.ClapConfig(text_config=_TEXT, audio_config=_HTSAT, projection_dim=12)
    ),
    "phi": lambda: Phi4MultimodalAudioModel(Phi4MultimodalAudioConfig(**_PHI)),
    "qwen2_audio": lambda: transformers.Qwen2AudioEncoder(transformers.Qwen2AudioEncoderConfig(**_QWEN)),
    "omni": lambda: Qwen2_5OmniAudioEncoder(Qwen2_5OmniAudioEncoderConfig(**{**_QWEN, "max_source_positions": 100})),
    "aut": lambda: Qwen3OmniMoeAudioEncoder(Qwen3OmniMoeAudioEncoderConfig(**_QWEN, downsample_hidden_size=4)),
}

_SMALL = {"size": {"height": 16, "width": 16}, "do_center_crop": False}
_FRAMES = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 8}
PROCESSORS: dict[str, dict[str, Any]] = {
    "clip": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 16}, "crop_size": 16},
    "siglip": {"image_processor_type": "SiglipImageProcessor", **_SMALL},
    "siglip2": {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 8, "max_num_patches": 4},
    "vit": {"image_processor_type": "ViTImageProcessor", **_SMALL},
    "dinov2": {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 16}, "crop_size": 16},
    "timesformer": {"image_processor_type": "VideoMAEImageProcessor", "size": {"shortest_edge": 16}, "crop_size": 16},
    "videomae": {"image_processor_type": "VideoMAEImageProcessor", "size": {"shortest_edge": 16}, "crop_size": 16},
    "vivit": {"image_processor_type": "VivitImageProcessor", "size": {"shortest_edge": 20}, "crop_size": 16},
    "qwen2_5_vl": {
        "image_processor_type": "Qwen2VLImageProcessor", "patch_size": 1, "temporal_patch_size": 1, "merge_size": 2,
        "min_pixels": 16, "max_pixels": 24,
    },
    "qwen3_vl": {
        "image_processor_type": "Qwen2VLImageProcessor", "video_processor_type": "Qwen3VLVideoProcessor",
        "patch_size": 1, "temporal_patch_size": 1, "merge_size": 2, "min_pixels": 16, "max_pixels": 24,
    },
    "whisper": {**_FRAMES, "chunk_length": 0.4},
    "wav2vec2": {"feature_extractor_type": "Wav2Vec2FeatureExtractor"},
    "hubert": {"feature_extractor_type": "Wav2Vec2FeatureExtractor"},
    "hubert_10ms": {"feature_extractor_type": "Wav2Vec2FeatureExtractor"},
    "conformer_10ms": {"feature_extractor_type": "Wav2Vec2FeatureExtractor"},
    "conformer": {"feature_extractor_type": "Wav2Vec2FeatureExtractor"},
    "ast": {"feature_extractor_type": "ASTFeatureExtractor", "num_mel_bins": 16, "max_length": 24},
    "clap": {"feature_extractor_type": "ClapFeatureExtractor", "feature_size": 8, "max_length_s": 1},
    "phi": {"feature_extractor_type": "Phi4MultimodalFeatureExtractor", "feature_size": 16},
    "qwen2_audio": {**_FRAMES, "chunk_length": 0.4},
    "omni": _FRAMES,
    "aut": _FRAMES,
}  # fmt: skip
"""preprocessor_config.json of those that have one, by the sizes of the tiny models."""


def save_tiny_model(folder: Path, name: str, change: Callable[[PreTrainedModel], None] = lambda model: None) -> None:
    """The model of that name, changed in place, and its processor's file, in a folder."""
    model = TINY[name]()
    change(model)
    model.save_pretrained(folder)
    if name in PROCESSORS:
        (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[name]))
