"""The language model inside the checkpoint of a whole multimodal model: LLaVA, BLIP-2, Qwen2-Audio, Qwen2.5-VL, ...

The whole model's own class is built, without weights, and everything that is not its language model or its head is
taken out before the file is read: towers and projectors are never in memory, and transformers' own rules still say
which tensor of the file is which. A model of a thinker and a talker (Qwen2.5-Omni) is its thinker.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
)
from transformers.utils import logging

from omniloom.errors import CheckpointError

__all__ = ["is_whole", "open_inside"]


def is_whole(config: PretrainedConfig) -> bool:
    """Whether a configuration is of a multimodal model, and of no language model.

    Some (Gemma 3) stand among the causal language models too, by the class of the whole.
    """
    kind = type(_thinker(config))
    whole = _class_of(_thinker(config))
    return whole is not None and (kind not in MODEL_FOR_CAUSAL_LM_MAPPING or MODEL_FOR_CAUSAL_LM_MAPPING[kind] is whole)


def open_inside(
    source: str, config: PretrainedConfig, *, revision: str | None, dtype: torch.dtype, weights: bool
) -> PreTrainedModel:
    """The language model with its head; `weights` False draws them.

    Raises:
        CheckpointError: the file lacks parameters of it.
    """
    config = _thinker(config)
    kind: Any = _without_towers(cast("type[PreTrainedModel]", _class_of(config)))
    if not weights:
        return _with_head(kind._from_config(config, dtype=dtype))
    verbosity, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    # What is left out would be reported as unexpected, tensor by tensor.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, info = kind.from_pretrained(
            source,
            config=config,
            revision=revision or "main",
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    finally:
        logging.set_verbosity(verbosity)
        if has_bar:
            logging.enable_progress_bar()
    wrong = sorted(info["missing_keys"]) or sorted(info["mismatched_keys"])
    if wrong:
        raise CheckpointError(
            f"the weights of {source!r} lack {len(wrong)} parameters of its language model, or have other shapes; "
            f"first: {wrong[0]!r}. The folder is incomplete or of another model."
        )
    return _with_head(model)


def _class_of(config: PretrainedConfig) -> type[PreTrainedModel] | None:
    """The whole model's class; some that hear stand among encoder-decoders, which have no language model inside."""
    for mapping in (MODEL_FOR_MULTIMODAL_LM_MAPPING, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING):
        if type(config) in mapping and "text_config" in config.sub_configs:
            return cast("type[PreTrainedModel]", mapping[type(config)])
    return None


def _thinker(config: PretrainedConfig) -> PretrainedConfig:
    thinker: PretrainedConfig = getattr(config, "thinker_config", config)
    return thinker


def _with_head(model: Any) -> PreTrainedModel:
    """The whole model, or the language model in it if that has a head of its own (BLIP-2).

    That one is asked by itself in transformers too, so it ends where its own configuration says.
    """
    inner: Any = _language_model(model)
    if inner.get_output_embeddings() is None:
        return cast("PreTrainedModel", model)
    return cast("PreTrainedModel", inner)


def _language_model(model: Any) -> nn.Module:
    holder = model if hasattr(model, "language_model") else model.base_model
    found: nn.Module = getattr(holder, "language_model", None) or model.get_decoder()
    return found


def _without_towers(kind: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """A class of the same name, by which transformers finds its rules; instances are trimmed when they are built."""

    def build(self: Any, config: PretrainedConfig) -> None:
        kind.__init__(self, config)
        _trim(self, {_language_model(self), self.get_output_embeddings()})

    return type(kind.__name__, (kind,), {"__init__": build, "__module__": kind.__module__})


def _trim(module: nn.Module, kept: set[nn.Module]) -> None:
    """Take out of a module what neither is kept nor holds something that is."""
    for name, child in list(module.named_children()):
        if child in kept:
            continue
        if kept & set(child.modules()):
            _trim(child, kept)
        else:
            delattr(module, name)
    for name, _ in list(module.named_parameters(recurse=False)):
        delattr(module, name)
    holder: Any = module
    holder._is_hf_initialized = True  # nothing of its own is left to draw
