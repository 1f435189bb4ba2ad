"""Any decoder-only language model of transformers, by hub id or folder; of a whole multimodal model the one inside.

The stock model runs unchanged: without adapters its logits are transformers' own, bit for bit.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache

from omniloom.backbone.base import BackboneOutput, CacheView, attention_mask
from omniloom.backbone.inside_whole import is_whole
from omniloom.backbone.stock import DTYPES, StockModel, load_tokenizer
from omniloom.errors import ConfigError
from omniloom.sequence import Plan

__all__ = ["DTYPES", "CausalLM", "load_tokenizer"]

# What configurations name a factor behind the head: Cohere's, Falcon-H1's, Muse's. MPT has the first and ignores it.
_HEAD_FACTORS = ("logit_scale", "lm_head_multiplier", "output_multiplier")


class CausalLM(StockModel):
    """A causal language model behind the slots of a plan; its options are those of `StockModel`."""

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
        super().__init__(
            AutoModelForCausalLM,
            id=id,
            revision=revision,
            dtype=dtype,
            template=template,
            system=system,
            weights=weights,
            gradient_checkpointing=gradient_checkpointing,
        )
        reads = inspect.signature(self._body.forward).parameters
        if self._body is self.lm or not {"inputs_embeds", "past_key_values"} <= set(reads):
            raise ConfigError(
                f"the language model {id!r} is of type {self.lm.config.model_type!r}, whose body takes no "
                "embeddings or keeps no key-value cache. Take a decoder-only model with attention."
            )
        self.is_maskable = _is_maskable(self.lm)
        self.position_axes = _position_axes(self.lm)
        if not is_whole(self.lm.config) and not self.embedding_table().is_meta:
            self._require_known_head()

    @property
    def _body(self) -> Any:
        """The model under the head."""
        base = self.lm.base_model if self.lm.base_model is not self.lm else self.lm.get_decoder()
        return getattr(base, "language_model", base)

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
            logits = logits * scaling if config.model_type == "hyperclovax" else logits / scaling
        for name in _HEAD_FACTORS:
            if config.model_type != "mpt" and (factor := getattr(config, name, None)) is not None:
                logits = logits * factor
        if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
            logits = torch.tanh(logits / cap) * cap
        return logits

    @torch.no_grad()
    def _require_known_head(self) -> None:
        """Hold what a few embeddings become here to what the stock model makes of their ids.

        Raises:
            ConfigError: they differ, or it cannot be asked by embeddings.
        """
        ids = torch.arange(3, device=self.embedding_table().device).clamp(max=self.vocab_size - 1)[None]
        try:
            theirs = self.lm(ids, use_cache=False).logits.float()
            body = self._body(inputs_embeds=self.embed(ids), use_cache=False, return_dict=True)
        except Exception as error:  # whatever a model raises that wants more than it is given here
            raise ConfigError(
                f"the language model {self.id!r} is of type {self.lm.config.model_type!r} and does not run from "
                f"embeddings alone ({type(error).__name__}: {error}). Take another model."
            ) from error
        ours = self.logits(body.last_hidden_state).float()
        if not bool(theirs.isfinite().all()):
            return  # a dtype that overflows compares with nothing
        if not torch.allclose(ours, theirs, rtol=0, atol=0.02 * float(theirs.abs().max()) + 1e-6):
            raise ConfigError(
                f"the language model {self.id!r} is of type {self.lm.config.model_type!r}, which does more with its "
                "embeddings or behind its layers than is known here; its answers would be others. Take another model."
            )


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
