"""The tokenizer inside a GGUF file, as a transformers tokenizer.

A GGUF file names how text is cut before byte-pair merging only by a word (`tokenizer.ggml.pre`). The cuts below are
those of the models the words stand for; an unknown word is refused, since a wrong cut gives other ids in silence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omniloom.errors import ConfigError, did_you_mean

__all__ = ["write_tokenizer"]

_CONTROL, _USER_DEFINED = 3, 4  # token types of the GGUF specification

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2_CUT = _WORDS % r"\p{N}"
_LLAMA3_CUT = _WORDS % r"\p{N}{1,3}"


def write_tokenizer(fields: dict[str, Any], out_folder: Path, *, max_length: int) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json` and the chat template into `out_folder`.

    Args:
        fields: the contents of the GGUF file's fields.
        max_length: tokens the model was made for.
    Raises:
        ConfigError: the tokenizer is not byte-level byte-pair encoding, or its cut is not known here.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    kind = fields.get("tokenizer.ggml.model")
    if kind != "gpt2":
        raise ConfigError(
            f"cannot convert a GGUF tokenizer of kind {kind!r}, only 'gpt2' (byte-level BPE). "
            "Use the model's own folder."
        )
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    cut = fields.get("tokenizer.ggml.pre", "default")
    tokenizer = Tokenizer(
        models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges, ignore_merges=cut == "llama-bpe")
    )
    tokenizer.normalizer, tokenizer.pre_tokenizer = _cut(cut)
    tokenizer.decoder = decoders.ByteLevel()
    for token, type_ in zip(tokens, fields.get("tokenizer.ggml.token_type", []), strict=False):
        if type_ == _CONTROL:
            tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        elif type_ == _USER_DEFINED:
            tokenizer.add_tokens([AddedToken(token, normalized=False)])
    roles = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    ids = {role: fields.get(f"tokenizer.ggml.{word}_token_id") for role, word in roles.items()}
    special = {role: tokens[index] for role, index in ids.items() if index is not None}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=max_length, clean_up_tokenization_spaces=False, **special
    )
    fast.chat_template = fields.get("tokenizer.chat_template")
    fast.save_pretrained(out_folder)


def _cut(name: str) -> tuple[Any, Any]:
    """(normaliser or None, pre-tokeniser) of a GGUF pre-tokeniser word."""
    from tokenizers import Regex, normalizers, pre_tokenizers
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split

    def by(pattern: str) -> pre_tokenizers.Sequence:
        return Sequence([Split(Regex(pattern), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)])

    known = {
        "gpt-2": lambda: (None, ByteLevel(add_prefix_space=False)),
        "smollm": lambda: (None, Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])),
        "qwen2": lambda: (normalizers.NFC(), by(_QWEN2_CUT)),
        "llama-bpe": lambda: (None, by(_LLAMA3_CUT)),
    }
    if name not in known:
        raise ConfigError(f"cannot convert a GGUF tokenizer cut as {name!r}.{did_you_mean(name, known)}")
    return known[name]()
