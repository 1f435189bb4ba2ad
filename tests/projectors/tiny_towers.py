"""Tiny random vision towers of transformers, saved as published ones are."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTModel


def save_tiny_towers(root: Path, *, width: int) -> None:
    """Folders `clip` and `vit` below root, their blocks `width` wide."""
    vision = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    }
    text = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 50,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(CLIPConfig(vision_config=vision, text_config=text)).save_pretrained(root / "clip")
        ViTModel(ViTConfig(**vision)).save_pretrained(root / "vit")
