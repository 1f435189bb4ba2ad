"""GGUF conversion: a tiny Llama or Qwen written as GGUF comes back with the same logits and the same ids."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from omniloom.backbone.gguf import convert_gguf
from omniloom.errors import ConfigError

_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_MERGES = ["Ġ t", "h e", "Ġt he", "1 2"]


def _tokens() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return ["<|end|>", "<|start|>", *sorted(ByteLevel.alphabet()), "Ġt", "he", "Ġthe", "12"]


def _tiny(kind: str, *, tied: bool = True) -> torch.nn.Module:
    torch.manual_seed(0)
    options = {
        "vocab_size": len(_tokens()), "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "head_dim": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
        "tie_word_embeddings": tied, "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
    }  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**options)) if kind == "llama" else Qwen3ForCausalLM(Qwen3Config(**options))


def _interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's order: row 2 i of a head is row i of its first half, row 2 i + 1 row i of its second."""
    rows = weight.reshape(heads, 2, -1, weight.shape[-1])
    return np.stack([rows[:, 0], rows[:, 1]], axis=2).reshape(weight.shape)


def _write(
    path: Path, model: torch.nn.Module, kind: str, *, quantised: bool = False, pre: str = "smollm", extra: bool = False
) -> None:
    config = model.config
    writer = gguf.GGUFWriter(path, kind)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(_tokens())
    writer.add_token_types([3, 3] + [1] * (len(_tokens()) - 2))
    writer.add_token_merges(_MERGES)
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_pad_token_id(0)
    writer.add_chat_template("{% for m in messages %}<|start|>{{ m['content'] }}<|end|>{% endfor %}")
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, _, ending = name.rpartition(".")
        weight = value.detach().numpy()
        if stem in _OUTER:
            stored = f"{_OUTER[stem]}.{ending}"
        else:
            _, _, layer, inner = stem.split(".", 3)
            stored = f"blk.{layer}.{_NAMES[inner]}.{ending}"
            heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(_NAMES[inner])
            if kind == "llama" and heads:
                weight = _interleaved(weight, heads)
        if quantised and weight.ndim == 2:
            type_ = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(stored, gguf.quants.quantize(weight, type_), raw_dtype=type_)
        else:
            writer.add_tensor(stored, np.ascontiguousarray(weight))
    if extra:
        writer.add_tensor("blk.0.ffn_gate_inp.weight", np.zeros((4, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.arange(2, 22).reshape(2, 10)).logits


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_converted_model_gives_the_logits_of_its_source(tmp_path: Path, kind: str, tied: bool) -> None:
    model = _tiny(kind, tied=tied)
    _write(tmp_path / "tiny.gguf", model, kind)
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out", dtype=torch.float32)
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values())
    assert torch.equal(_logits(loaded), _logits(model))


def test_a_quantised_model_gives_nearly_the_logits_of_its_source(tmp_path: Path) -> None:
    model = _tiny("llama")
    _write(tmp_path / "tiny.gguf", model, "llama", quantised=True)
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out", dtype=torch.float32)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    exact = _logits(model)
    # Q8_0 keeps weights to 1 part in 254 of the largest of 32.
    assert 0 < (_logits(loaded) - exact).abs().max() < 0.03 * exact.abs().max()


def test_weights_are_stored_in_the_type_asked_for(tmp_path: Path) -> None:
    _write(tmp_path / "tiny.gguf", _tiny("llama"), "llama")
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16


def test_the_tokenizer_merges_cuts_digits_and_knows_its_specials(tmp_path: Path) -> None:
    _write(tmp_path / "tiny.gguf", _tiny("llama"), "llama")
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.tokenize("a the 42") == ["a", "Ġthe", "Ġ", "4", "2"]
    text = "<|start|> Über 7\n the<|end|>"
    ids = tokenizer(text)["input_ids"]
    assert (ids[0], ids[-1]) == (1, 0)
    assert tokenizer.decode(ids) == text
    assert (tokenizer.eos_token, tokenizer.bos_token, tokenizer.pad_token) == ("<|end|>", "<|start|>", "<|end|>")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False) == "<|start|>a<|end|>"


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["12", "3", "4", "12"]),  # a number is one piece before merging
        ("smollm", ["1", "2", "3", "4", "1", "2"]),  # every digit is
        ("qwen2", ["1", "2", "3", "4", "1", "2"]),
        ("llama-bpe", ["12", "3", "4", "12"]),  # every three digits are
    ],
)
def test_every_known_cut_cuts_numbers_its_way(tmp_path: Path, pre: str, pieces: list[str]) -> None:
    _write(tmp_path / "tiny.gguf", _tiny("llama"), "llama", pre=pre)
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.tokenize("123412") == pieces
    assert tokenizer.decode(tokenizer("it's\n\n the  1234!")["input_ids"]) == "it's\n\n the  1234!"


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ConfigError, match=r"architecture 'mamba'.*llama, qwen2, qwen3"):
        convert_gguf(tmp_path / "other.gguf", tmp_path / "out")


def test_an_unknown_cut_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "tiny.gguf", _tiny("llama"), "llama", pre="smolm")
    with pytest.raises(ConfigError, match="Did you mean 'smollm'"):
        convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out")


def test_a_tensor_that_no_known_model_has_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "tiny.gguf", _tiny("llama"), "llama", extra=True)
    with pytest.raises(ConfigError, match="ffn_gate_inp"):
        convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out")


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_bytes(b"not a model at all, but long enough to be read")
    with pytest.raises(ConfigError, match="not a whole GGUF file"):
        convert_gguf(tmp_path / "text.gguf", tmp_path / "out")


def test_a_folder_with_a_model_is_not_written_over(tmp_path: Path) -> None:
    _write(tmp_path / "tiny.gguf", _tiny("llama"), "llama")
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out")
    with pytest.raises(ConfigError, match="holds a model already"):
        convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out")
