"""Any decoder-only language model of transformers, by hub id or folder.

The stock model runs unchanged: without adapters its logits are transformers' own, bit for bit.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, DynamicCache, GenerationConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from omniloom.backbone.base import BackboneOutput, CacheView, attention_mask
from omniloom.backbone.gguf import convert_gguf
from omniloom.backbone.hooking import HookableLayers
from omniloom.errors import ConfigError, MissingAssetError
from omniloom.registry import resolve_asset
from omniloom.sequence import Plan

__all__ = ["DTYPES", "CausalLM", "load_tokenizer"]

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class CausalLM(HookableLayers):
    """A causal language model behind the slots of a plan.

    `id`: hub id, folder, `scheme:name` of the assets table, or a `.gguf` file, which is converted once beside
    itself. `revision`: of a hub id; pin it for results that can be rerun. `dtype`: of its weights. `template`:
    "chat" takes the tokenizer's chat template, "plain" needs none. `system`: None keeps the template's own opening,
    "" opens with nothing, other text is the system prompt of every conversation without one. `weights` False builds
    the true class with random weights from its config alone. `gradient_checkpointing` trades time for memory.
    """

    def __init__(
        self,
        *,
        id: str,
        revision: str | None = None,
        dtype: str = "float32",
        template: str = "chat",
        system: str | None = None,
        weights: bool = True,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if dtype not in DTYPES:
            raise ConfigError(f"backbone dtype is {dtype!r}; expected one of {', '.join(DTYPES)}.")
        if template not in ("chat", "plain"):
            raise ConfigError(f"backbone template is {template!r}; expected 'chat' or 'plain'.")
        self.id, self.revision, self.dtype, self.template, self.system = id, revision, dtype, template, system
        self.weights, self.gradient_checkpointing = weights, gradient_checkpointing
        self.lm = self._load()
        reads = inspect.signature(self._body.forward).parameters
        if self._body is self.lm or not {"inputs_embeds", "past_key_values"} <= set(reads):
            raise ConfigError(
                f"the language model {id!r} is of type {self.lm.config.model_type!r}, whose body takes no "
                "embeddings or keeps no key-value cache. Take a decoder-only model with attention."
            )
        self.is_maskable = _is_maskable(self.lm)
        self.position_axes = _position_axes(self.lm)
        if gradient_checkpointing:
            self.lm.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": self.checkpoint_contexts})
            _still_dropout(self.lm)
        config = self.lm.config.get_text_config()
        self.width = int(config.hidden_size)
        self.vocab_size = int(self.lm.get_input_embeddings().weight.shape[0])
        self.stop_ids = _stop_ids(self.lm.generation_config)
        self.lm.eval()

    def _load(self) -> Any:
        folder = locate(self.id)
        try:
            if self.weights:
                return AutoModelForCausalLM.from_pretrained(
                    folder,
                    revision=self.revision,
                    dtype=DTYPES[self.dtype],
                    use_safetensors=True,
                    trust_remote_code=False,
                )
            config = AutoConfig.from_pretrained(folder, revision=self.revision, trust_remote_code=False)
            return AutoModelForCausalLM.from_config(config, dtype=DTYPES[self.dtype], trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise MissingAssetError(
                f"cannot load the language model {self.id!r}: {str(error).splitlines()[0]} "
                "Give a hub id that is cached or reachable, or a folder with config.json and safetensors."
            ) from error

    @property
    def _body(self) -> Any:
        """The model under the head."""
        return self.lm.base_model if self.lm.base_model is not self.lm else self.lm.get_decoder()

    def embed(self, ids: Tensor) -> Tensor:
        return self.lm.get_input_embeddings()(ids)

    def embedding_table(self) -> Tensor:
        return self.lm.get_input_embeddings().weight

    def head_table(self) -> Tensor:
        return self.lm.get_output_embeddings().weight

    def forward(self, embeds: Tensor, plan: Plan, *, cache: Any = None, taps: Sequence[int] = ()) -> BackboneOutput:
        packed = plan.is_packed or plan.has_spans
        if not self.is_maskable and (packed or (cache is not None and bool(plan.is_padding.any()))):
            raise ConfigError(
                f"a language model of type {self.lm.config.model_type!r} cannot keep packed documents apart, nor "
                "decode rows of different lengths together. Set `pack: 0`; decode like lengths."
            )
        self._checkpoint_layers(torch.is_grad_enabled() and cache is None)
        mask = self._masks(attention_mask(plan), attention_mask(plan, window=self._window)) if packed else None
        out = self._body(
            inputs_embeds=embeds,
            attention_mask=mask,
            # Restarting positions without an explicit mask would be read as packing; plain rows need neither.
            position_ids=plan.position if plan.position.shape[0] > 1 else plan.position[0] if packed else None,
            past_key_values=cache,
            use_cache=cache is not None,
            output_hidden_states=bool(taps),
            return_dict=True,
        )
        return BackboneOutput(out.last_hidden_state, {layer: out.hidden_states[layer] for layer in taps})

    @property
    def _window(self) -> int | None:
        """How many positions back the sliding layers see; None without any."""
        config = self.lm.config.get_text_config()
        kinds = getattr(config, "layer_types", None)
        window: int | None = getattr(config, "sliding_window", None)
        return window if not kinds or "sliding_attention" in kinds else None

    def _masks(self, full: Tensor | None, sliding: Tensor | None) -> Tensor | dict[str, Tensor | None] | None:
        """The masks as this model's layers take them: one, or one per kind of layer."""
        if self.lm.config._attn_implementation == "eager":
            full, sliding = self._additive(full), self._additive(sliding)
        kinds = getattr(self.lm.config.get_text_config(), "layer_types", None) or ()
        if "sliding_attention" in kinds:
            return {"full_attention": full, "sliding_attention": sliding}
        return full if self._window is None else sliding

    def _additive(self, mask: Tensor | None) -> Tensor | None:
        """Eager attention adds its mask to the scores; a bool one would be added as 0 and 1."""
        if mask is None:
            return None
        return torch.zeros_like(mask, dtype=self.lm.dtype).masked_fill(~mask, torch.finfo(self.lm.dtype).min)

    def _checkpoint_layers(self, is_on: bool) -> None:
        """transformers checkpoints a layer in training mode only; here that mode is set for the layer alone, so that
        dropout inside it stays off."""
        if self.gradient_checkpointing:
            for layer in self.lm.modules():
                if isinstance(layer, GradientCheckpointingLayer):
                    layer.training = is_on

    def new_cache(self) -> Any:
        """An empty key-value cache for this model.

        Sliding layers keep everything and are masked: a cache that drops old slots counts padding among the new ones.
        """
        return DynamicCache() if self.is_maskable else DynamicCache(config=self.lm.config)

    def step(self, embeds: Tensor, view: CacheView) -> Tensor:
        rows = view.valid.shape[0]
        view.valid = torch.cat([view.valid, view.valid.new_ones(rows, 1)], dim=1)
        self._checkpoint_layers(False)
        mask = None if view.is_plain else self._masks(view.mask(), view.mask(window=self._window))
        out = self._body(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=view.next_position[:, None],
            past_key_values=view.cache,
            use_cache=True,
            return_dict=True,
        )
        view.next_position = view.next_position + 1
        return out.last_hidden_state[:, -1]

    def logits(self, hidden: Tensor) -> Tensor:
        logits = self.lm.get_output_embeddings()(hidden)
        config = self.lm.config.get_text_config()
        if (scaling := getattr(config, "logits_scaling", None)) is not None:
            logits = logits / scaling
        if (scale := getattr(config, "logit_scale", None)) is not None:
            logits = logits * scale
        if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
            logits = torch.tanh(logits / cap) * cap
        return logits


def locate(reference: str) -> str:
    """The folder or hub id that transformers can open; a GGUF file is converted once into a folder beside it."""
    path = resolve_asset(reference)
    if path.endswith(".gguf"):
        source = Path(path)
        folder = source.with_suffix(".transformers")
        if not (folder / "config.json").is_file():
            convert_gguf(source, folder)
        return str(folder)
    return path


def load_tokenizer(reference: str, *, revision: str | None = None) -> Any:
    """The tokenizer that belongs to a language model.

    Raises:
        MissingAssetError: there is none at that id or folder.
    """
    try:
        return AutoTokenizer.from_pretrained(locate(reference), revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise MissingAssetError(f"cannot load a tokenizer of {reference!r}: {str(error).splitlines()[0]}") from error


def _still_dropout(lm: Any) -> None:
    """Some layers (OPT's) drop by their own mode and not by a child's; that mode is on while they are checkpointed."""
    for layer in lm.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            for name in [name for name, value in vars(layer).items() if "dropout" in name and type(value) is float]:
                setattr(layer, name, 0.0)


def _is_maskable(lm: Any) -> bool:
    """False for recurrent and convolving layers, chunked attention, and biases that count slots (ALiBi)."""
    config = lm.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    has_alibi = bool(getattr(config, "alibi", False)) or config.model_type in ("bloom", "mpt")
    return kinds <= {"full_attention", "sliding_attention"} and not has_alibi and not getattr(lm, "_is_stateful", False)


def _position_axes(lm: Any) -> int:
    """3 where rotary positions have sections for time, height and width."""
    rope = getattr(lm.config.get_text_config(), "rope_parameters", None) or {}
    return 3 if "mrope_section" in rope else 1


def _stop_ids(config: GenerationConfig | None) -> frozenset[int]:
    eos = getattr(config, "eos_token_id", None)
    if eos is None:
        return frozenset()
    return frozenset([eos] if isinstance(eos, int) else eos)
