"""Any decoder-only language model of transformers, by hub id or folder.

The stock model runs unchanged: without adapters its logits are transformers' own, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, DynamicCache, GenerationConfig

from omniloom.backbone.base import Backbone, BackboneOutput, CacheView, attention_mask
from omniloom.backbone.gguf import convert_gguf
from omniloom.errors import ConfigError, MissingAssetError
from omniloom.registry import resolve_asset
from omniloom.sequence import Plan

__all__ = ["DTYPES", "CausalLM", "load_tokenizer"]

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class CausalLM(Backbone):
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
        if gradient_checkpointing:
            self.lm.gradient_checkpointing_enable()
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

    def embed(self, ids: Tensor) -> Tensor:
        return self.lm.get_input_embeddings()(ids)

    def embedding_table(self) -> Tensor:
        return self.lm.get_input_embeddings().weight

    def forward(self, embeds: Tensor, plan: Plan, *, cache: Any = None, taps: Sequence[int] = ()) -> BackboneOutput:
        packed = plan.is_packed
        out = self.lm.base_model(
            inputs_embeds=embeds,
            attention_mask=self._masks(plan) if packed else None,
            # Restarting positions without an explicit mask would be read as packing; plain rows need neither.
            position_ids=plan.position[0] if packed else None,
            past_key_values=cache,
            use_cache=cache is not None,
            output_hidden_states=bool(taps),
            return_dict=True,
        )
        return BackboneOutput(out.last_hidden_state, {layer: out.hidden_states[layer] for layer in taps})

    def _masks(self, plan: Plan) -> Tensor | dict[str, Tensor | None] | None:
        config = self.lm.config.get_text_config()
        full = attention_mask(plan)
        window = getattr(config, "sliding_window", None)
        kinds = set(getattr(config, "layer_types", None) or ())
        if "sliding_attention" in kinds:
            return {"full_attention": full, "sliding_attention": attention_mask(plan, window=window)}
        if window is not None and not kinds:
            return attention_mask(plan, window=window)
        return full

    def new_cache(self) -> Any:
        """An empty key-value cache for this model."""
        return DynamicCache(config=self.lm.config)

    def step(self, embeds: Tensor, view: CacheView) -> Tensor:
        rows = view.valid.shape[0]
        view.valid = torch.cat([view.valid, view.valid.new_ones(rows, 1)], dim=1)
        out = self.lm.base_model(
            inputs_embeds=embeds,
            attention_mask=None if view.is_plain else view.valid,
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


def _stop_ids(config: GenerationConfig | None) -> frozenset[int]:
    eos = getattr(config, "eos_token_id", None)
    if eos is None:
        return frozenset()
    return frozenset([eos] if isinstance(eos, int) else eos)
