"""Tiny random instances of BLIP-2 and InstructBLIP, of their real classes."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    BertTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    PreTrainedModel,
)

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "is", "it", "count", "them", "all", "where"]


def save_tiny(root: Path, *, rows: int = 12, width: int = 8) -> dict[str, PreTrainedModel]:
    """name -> model, saved below `root`; rows of the vision tower are `rows` wide, the language model `width`."""
    torch.manual_seed(0)
    vision = {"hidden_size": rows, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 16, "patch_size": 8, "initializer_range": 0.2}
    inner = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    inner |= {"encoder_hidden_size": rows, "vocab_size": len(WORDS), "max_position_embeddings": 10}
    inner |= {"initializer_range": 0.3}
    text = {"model_type": "opt", "hidden_size": width, "word_embed_proj_dim": width, "ffn_dim": 16, "vocab_size": 40}
    text |= {"num_hidden_layers": 1, "num_attention_heads": 2}
    parts = {"vision_config": vision, "qformer_config": inner, "text_config": text, "num_query_tokens": 4}
    models: dict[str, PreTrainedModel] = {
        "blip2": Blip2ForConditionalGeneration(Blip2Config(**parts)),
        "instructblip": InstructBlipForConditionalGeneration(InstructBlipConfig(**parts)),
    }
    for name, model in models.items():
        torch.nn.init.normal_(model.query_tokens)  # zero in a fresh model, where queries stay equal
        model.eval().save_pretrained(root / name)
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)})
    tokenizer.save_pretrained(root / "instructblip" / "qformer_tokenizer")
    return models
