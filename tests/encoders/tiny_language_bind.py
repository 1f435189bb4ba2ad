"""Tiny branches of LanguageBind as published: config.json, and weights under the published names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from omniloom.encoders.language_bind import LanguageBind

TOWER = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
    "hidden_act": "gelu",
}
BRANCHES: dict[str, dict[str, Any]] = {
    "LanguageBindImage": {},
    "LanguageBindVideo": {"add_time_attn": True, "num_frames": 4, "lora_r": 2, "lora_alpha": 4},
    "LanguageBindAudio": {"num_mel_bins": 16, "target_length": 24},
}


def save_branch(folder: Path, kind: str, **fields: object) -> None:
    """A random branch of that kind; every weight is of the size that lets what passes keep its own."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": kind, "projection_dim": 12, "vision_config": {**TOWER, **BRANCHES[kind], **fields}}
    (folder / "config.json").write_text(json.dumps(config))
    part = LanguageBind(id=str(folder), weights=False)
    with torch.no_grad():
        for value in part.parameters():
            torch.nn.init.normal_(value, std=value[0].numel() ** -0.5 if value.dim() > 1 else 0.5)
        for module in part.modules():
            if isinstance(module, torch.nn.LayerNorm):
                torch.nn.init.ones_(module.weight)
    save_file({"logit_scale": torch.tensor(4.6), **part.state_dict()}, folder / "model.safetensors")
