"""A Whisper model of CTranslate2 (`model.bin`) to a transformers folder.

CTranslate2 stores one binary file: a list of named arrays, then aliases; q, k and v lie in one matrix. The folder
written loads with `WhisperForConditionalGeneration.from_pretrained`.

Source: the layout is that of CTranslate2's `ModelSpec._serialize`, binary version 6.
"""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from omniloom.errors import CheckpointError

__all__ = ["convert_whisper", "read_model_bin"]

_VERSION = 6
_HEAD_DIM = 64  # of every Whisper size
_DTYPES: dict[int, np.dtype] = {
    0: np.dtype("<f4"),
    1: np.dtype("i1"),
    2: np.dtype("<i2"),
    3: np.dtype("<i4"),
    4: np.dtype("<f2"),
}


def read_model_bin(path: Path) -> dict[str, Tensor]:
    """Name -> tensor of every array in a CTranslate2 `model.bin`, aliases included.

    Raises:
        CheckpointError: another version, an unknown type, or a file that ends early or late.
    """
    with path.open("rb") as file:

        def take(format_: str) -> tuple[Any, ...]:
            size = struct.calcsize(format_)
            data = file.read(size)
            if len(data) != size:
                raise CheckpointError(f"{path} ends within a header; it is not whole. Fetch it again.")
            return struct.unpack(format_, data)

        (version,) = take("<I")
        if version != _VERSION:
            raise CheckpointError(f"{path} has CTranslate2 binary version {version}, expected {_VERSION}.")
        spec = _text(file, take)
        take("<I")  # revision of the spec
        if spec != "WhisperSpec":
            raise CheckpointError(f"{path} holds a {spec!r}, expected 'WhisperSpec'.")
        arrays: dict[str, Tensor] = {}
        for _ in range(take("<I")[0]):
            name = _text(file, take)
            shape = take(f"<{take('<B')[0]}I")
            type_, size = take("<BI")
            if type_ not in _DTYPES or size != _DTYPES[type_].itemsize * int(np.prod(shape)):
                raise CheckpointError(f"{path}: array {name!r} has type {type_} and {size} bytes for shape {shape}.")
            data = file.read(size)
            if len(data) != size:
                raise CheckpointError(f"{path} ends within array {name!r}; it is not whole. Fetch it again.")
            arrays[name] = torch.from_numpy(np.frombuffer(data, _DTYPES[type_]).reshape(shape).copy())
        for _ in range(take("<I")[0]):
            alias, target = _text(file, take), _text(file, take)
            arrays[alias] = arrays[target]
        if file.read(1):
            raise CheckpointError(f"{path} goes on after its last array; it is not a file of version {_VERSION}.")
    return arrays


def _text(file: BinaryIO, take: Any) -> str:
    return file.read(take("<H")[0]).rstrip(b"\0").decode()


def convert_whisper(source: Path, out_folder: Path) -> Path:
    """Write the English-only Whisper in `source` (model.bin, config.json, tokenizer.json) into `out_folder`.

    Weights stay float16 as stored. Tokens that decoding must suppress come from the source's own configuration.
    """
    from safetensors.torch import save_file
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    arrays = read_model_bin(source / "model.bin")
    state = _state(arrays)
    shape = {name: tuple(value.shape) for name, value in state.items()}
    vocab_size, d_model = shape["model.decoder.embed_tokens.weight"]
    layers = {
        part: len({n.split(".")[3] for n in state if n.startswith(f"model.{part}.layers.")})
        for part in ("encoder", "decoder")
    }
    original = json.loads((source / "config.json").read_text(encoding="utf-8"))
    ids = _special_ids(source / "tokenizer.json")
    config = WhisperConfig(
        vocab_size=vocab_size,
        d_model=d_model,
        num_mel_bins=shape["model.encoder.conv1.weight"][1],
        encoder_layers=layers["encoder"],
        decoder_layers=layers["decoder"],
        encoder_attention_heads=d_model // _HEAD_DIM,
        decoder_attention_heads=d_model // _HEAD_DIM,
        encoder_ffn_dim=shape["model.encoder.layers.0.fc1.weight"][0],
        decoder_ffn_dim=shape["model.decoder.layers.0.fc1.weight"][0],
        max_source_positions=shape["model.encoder.embed_positions.weight"][0],
        max_target_positions=shape["model.decoder.embed_positions.weight"][0],
        bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|endoftext|>"],
        pad_token_id=ids["<|endoftext|>"],
        decoder_start_token_id=ids["<|startoftranscript|>"],
        dtype=torch.float16,
    )
    config.architectures = ["WhisperForConditionalGeneration"]
    with torch.device("meta"):
        expected = {n: tuple(v.shape) for n, v in WhisperForConditionalGeneration(config).state_dict().items()}
    del expected["proj_out.weight"]  # tied to the embeddings
    wrong = sorted({name for name, _ in set(expected.items()) ^ set(shape.items())})
    if wrong:
        raise CheckpointError(
            f"{source}: {wrong[0]} is {shape.get(wrong[0], 'missing')}, expected {expected.get(wrong[0], 'none')}."
        )
    out_folder.mkdir(parents=True, exist_ok=True)
    save_file(state, out_folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(out_folder)
    _write_companions(source, out_folder, config, original, ids)
    return out_folder


def _state(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """The arrays under transformers' names, fused matrices taken apart."""
    state: dict[str, Tensor] = {}

    def linear(source: str, *targets: str) -> None:
        weights, biases = (arrays[f"{source}/{kind}"].chunk(len(targets)) for kind in ("weight", "bias"))
        for target, weight, bias in zip(targets, weights, biases, strict=True):
            state[f"{target}.weight"] = weight.contiguous()
            if not target.endswith("k_proj"):  # keys have no bias in Whisper; the fused one is zero there
                state[f"{target}.bias"] = bias.contiguous()

    def norm(source: str, target: str) -> None:
        state[f"{target}.weight"], state[f"{target}.bias"] = arrays[f"{source}/gamma"], arrays[f"{source}/beta"]

    for part in ("encoder", "decoder"):
        count = len({name.split("/")[1] for name in arrays if name.startswith(f"{part}/layer_") and "/ffn/" in name})
        for index in range(count):
            old, new = f"{part}/layer_{index}", f"model.{part}.layers.{index}"
            attention = f"{new}.self_attn"
            norm(f"{old}/self_attention/layer_norm", f"{attention}_layer_norm")
            linear(f"{old}/self_attention/linear_0", *(f"{attention}.{x}_proj" for x in "qkv"))
            linear(f"{old}/self_attention/linear_1", f"{attention}.out_proj")
            if part == "decoder":
                attention = f"{new}.encoder_attn"
                norm(f"{old}/attention/layer_norm", f"{attention}_layer_norm")
                linear(f"{old}/attention/linear_0", f"{attention}.q_proj")
                linear(f"{old}/attention/linear_1", *(f"{attention}.{x}_proj" for x in "kv"))
                linear(f"{old}/attention/linear_2", f"{attention}.out_proj")
            norm(f"{old}/ffn/layer_norm", f"{new}.final_layer_norm")
            linear(f"{old}/ffn/linear_0", f"{new}.fc1")
            linear(f"{old}/ffn/linear_1", f"{new}.fc2")
        norm(f"{part}/layer_norm", f"model.{part}.layer_norm")
        state[f"model.{part}.embed_positions.weight"] = arrays[f"{part}/position_encodings/encodings"]
    for conv in ("conv1", "conv2"):
        linear(f"encoder/{conv}", f"model.encoder.{conv}")
    state["model.decoder.embed_tokens.weight"] = arrays["decoder/embeddings/weight"]
    return state


def _special_ids(tokenizer_json: Path) -> dict[str, int]:
    return {t["content"]: t["id"] for t in json.loads(tokenizer_json.read_text(encoding="utf-8"))["added_tokens"]}


def _write_companions(source: Path, out: Path, config: Any, original: dict[str, Any], ids: dict[str, int]) -> None:
    """Tokenizer, features and generation settings beside the weights."""
    from transformers import GenerationConfig, PreTrainedTokenizerFast, WhisperFeatureExtractor

    end = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(source / "tokenizer.json"), bos_token=end, eos_token=end, unk_token=end, pad_token=end,
        model_max_length=config.max_target_positions, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.save_pretrained(out)
    # The tokenizer goes over byte for byte: saving it again could renumber what it adds.
    shutil.copyfile(source / "tokenizer.json", out / "tokenizer.json")
    WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(out)
    GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
        no_timestamps_token_id=ids["<|notimestamps|>"],
        prev_sot_token_id=ids["<|startofprev|>"],
        suppress_tokens=original["suppress_ids"],
        begin_suppress_tokens=original["suppress_ids_begin"],
        alignment_heads=original["alignment_heads"],
        is_multilingual=False,
        return_timestamps=False,
        max_initial_timestamp_index=50,
        max_length=config.max_target_positions,
    ).save_pretrained(out)
