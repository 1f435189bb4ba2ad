"""Tokenizers of SentencePiece's kind in small: words begin with the space before them."""

from __future__ import annotations

import string

from tokenizers import normalizers, processors
from transformers import LlamaTokenizer

WORDS = ("▁USER", "▁ASS", "IST", "ANT", "▁What", "What", "▁is", "▁it", "▁a", "▁cat", "▁Really", "▁▁", "▁[INST]")
FORMS = ("first", "always", "prepended")


def sentence_piece_tokenizer(form: str, *specials: str) -> LlamaTokenizer:
    """LLaMA's: a space before the "first" piece of a text, or "always" behind special tokens too; "prepended" as older
    files have it, by a normalizer. It begins a text with <s>."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocabulary |= {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    for letter in ("▁", *string.ascii_letters, *string.digits, *":?!.,[]/<>"):
        vocabulary[letter] = len(vocabulary)
    merges = []
    for word in WORDS:
        for end in range(2, len(word) + 1):
            if word[:end] not in vocabulary:
                vocabulary[word[:end]] = len(vocabulary)
                merges.append((word[: end - 1], word[end - 1]))
    tokenizer = LlamaTokenizer(vocab=vocabulary, merges=merges, legacy=form == "always")
    if form == "prepended":
        backend = tokenizer.backend_tokenizer
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        backend.pre_tokenizer = None
    tokenizer.add_special_tokens({"additional_special_tokens": list(specials)})
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return tokenizer
