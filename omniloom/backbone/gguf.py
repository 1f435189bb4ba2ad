"""GGUF to a transformers folder, once: bf16 safetensors, config, tokenizer and chat template.

A GGUF file is read directly with the `gguf` package; the folder written loads afterwards with
`AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained` like any published model, in a fraction
of the time. Weights that were quantised stay as coarse as they were; they are only stored in another type.

Source: the GGUF specification, and llama.cpp's conversion script for the order of rotary rows.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omniloom.backbone.gguf_tokenizer import write_tokenizer
from omniloom.errors import ConfigError, MissingAssetError, did_you_mean

__all__ = ["convert_gguf"]

_SHARD_SIZE = "4GB"

# GGUF name -> transformers name, of the whole model and of one layer.
_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

# Only the conversion of Llama reorders the rows of q and k; the others are stored as transformers has them.
_HAS_PERMUTED_ROTARY = {"llama": True, "qwen2": False, "qwen3": False}


def convert_gguf(gguf_path: Path, out_folder: Path, *, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Write the model and tokenizer of a GGUF file into `out_folder` as transformers writes them.

    Args:
        gguf_path: a single-file GGUF of architecture llama, qwen2 or qwen3, of any type gguf can dequantise.
        out_folder: made if absent; must not hold a model already.
        dtype: the type the weights are stored in.
    Returns:
        `out_folder`.
    Raises:
        ConfigError: not a GGUF file, another architecture, a rotary scaling or tokenizer that is not known here, or
            tensors that are missing or left over. A guess would load and answer nonsense.
    """
    reader = _reader(gguf_path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    architecture = fields.get("general.architecture")
    if architecture not in _HAS_PERMUTED_ROTARY:
        hint = did_you_mean(str(architecture), _HAS_PERMUTED_ROTARY)
        raise ConfigError(f"cannot convert a GGUF of architecture {architecture!r}.{hint}")
    if (out_folder / "config.json").exists():
        raise ConfigError(f"{out_folder} holds a model already. Name another folder.")
    names = {tensor.name for tensor in reader.tensors}
    config = _config(architecture, fields, names, dtype)
    state = {}
    for tensor in reader.tensors:
        state[_name(tensor.name)] = _weight(tensor, config, _HAS_PERMUTED_ROTARY[architecture]).to(dtype)
    model_class = _check(config, state)

    from huggingface_hub import save_torch_state_dict
    from transformers import GenerationConfig

    out_folder.mkdir(parents=True, exist_ok=True)
    save_torch_state_dict(state, out_folder, max_shard_size=_SHARD_SIZE, metadata={"format": "pt"})
    config.architectures = [model_class]
    config.save_pretrained(out_folder)
    ids = {key: getattr(config, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    GenerationConfig(**ids).save_pretrained(out_folder)
    write_tokenizer(fields, out_folder, max_length=config.max_position_embeddings)
    return out_folder


def _reader(path: Path) -> Any:
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError as error:
        raise MissingAssetError(
            "reading a GGUF file needs the package `gguf`. Install it: pip install gguf."
        ) from error
    if not path.is_file():
        raise ConfigError(f"there is no GGUF file {path}.")
    try:
        return GGUFReader(path)
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise ConfigError(f"{path} is not a whole GGUF file: {error}.") from error


def _config(architecture: str, fields: dict[str, Any], names: set[str], dtype: torch.dtype) -> Any:
    """The transformers configuration that the file's fields describe."""
    from transformers import AutoConfig

    def of(key: str, *default: Any) -> Any:
        if f"{architecture}.{key}" in fields:
            return fields[f"{architecture}.{key}"]
        if default:
            return default[0]
        raise ConfigError(f"the GGUF file has no field {architecture}.{key}; it is not a whole {architecture} model.")

    scaling = of("rope.scaling.type", "none")
    if scaling != "none" or "rope_freqs.weight" in names:
        raise ConfigError(
            f"cannot convert a GGUF with rotary scaling ({scaling!r}). Use the model's own transformers folder."
        )
    hidden_size, heads = of("embedding_length"), of("attention.head_count")
    embedding = fields["tokenizer.ggml.tokens"] if "tokenizer.ggml.tokens" in fields else []
    options = {
        "vocab_size": len(embedding) or of("vocab_size"),
        "hidden_size": hidden_size,
        "intermediate_size": of("feed_forward_length"),
        "num_hidden_layers": of("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": of("attention.head_count_kv", heads),
        "head_dim": of("attention.key_length", of("rope.dimension_count", hidden_size // heads)),
        "max_position_embeddings": of("context_length"),
        "rms_norm_eps": of("attention.layer_norm_rms_epsilon"),
        "rope_parameters": {"rope_type": "default", "rope_theta": of("rope.freq_base", 10000.0)},
        "tie_word_embeddings": "output.weight" not in names,
        "bos_token_id": fields.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": fields.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": fields.get("tokenizer.ggml.padding_token_id"),
        "dtype": dtype,
    }
    return AutoConfig.for_model(architecture, **options)


def _name(name: str) -> str:
    """The transformers name of a GGUF tensor.

    Raises:
        ConfigError: a tensor that none of the known architectures has.
    """
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if layer and layer[2] in _INNER:
        return f"model.layers.{layer[1]}.{_INNER[layer[2]]}.{layer[3]}"
    stem, _, kind = name.rpartition(".")
    if stem in _OUTER:
        return f"{_OUTER[stem]}.{kind}"
    raise ConfigError(f"cannot convert a GGUF with a tensor {name!r}; no llama, qwen2 or qwen3 model has it.")


def _weight(tensor: Any, config: Any, has_permuted_rotary: bool) -> Tensor:
    """A tensor of the file in float32 and in transformers' order of rows."""
    from gguf.quants import dequantize

    try:
        values = dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError as error:
        raise ConfigError(
            f"tensor {tensor.name!r} is of type {tensor.tensor_type.name}, which gguf cannot dequantise."
        ) from error
    weight = torch.from_numpy(np.array(values, dtype=np.float32))
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(tensor.name.split(".")[-2])
    if has_permuted_rotary and heads is not None:
        # Stored: the two halves of every head interleaved row by row. Wanted: one half after the other.
        shape = weight.shape
        weight = weight.reshape(heads, shape[0] // heads // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
    return weight


def _check(config: Any, state: dict[str, Tensor]) -> str:
    """Compare names and shapes with the true model's, on the meta device; returns its class name."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if config.tie_word_embeddings:
        del expected["lm_head.weight"]
    found = {name: tuple(value.shape) for name, value in state.items()}
    wrong = sorted({name for name, _ in set(expected.items()) ^ set(found.items())})
    if wrong:
        raise ConfigError(
            f"{len(wrong)} tensors of the GGUF file do not fit {type(model).__name__}: {wrong[0]} is "
            f"{found.get(wrong[0], 'missing')}, expected {expected.get(wrong[0], 'none')}. The file is damaged "
            "or another model's."
        )
    return type(model).__name__
