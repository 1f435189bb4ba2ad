"""Encoder-decoder language models of transformers, by hub id or folder: T5, Flan-T5, mT5, UMT5 and BART.

The encoder reads the slots of stream 1 of every row, in both directions; the decoder says those of stream 0 and reads
what the encoder made of its own document. Both are the stock ones: logits are those of transformers for the same
embeddings. Packed documents are kept apart by masks, which is exact where positions are relative (T5 and its kin).

Source: T5 (arXiv:1910.10683); the language model of BLIP-2 FlanT5 (arXiv:2301.12597) and of CREMA (arXiv:2402.05889).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, DynamicCache, EncoderDecoderCache
from transformers.modeling_layers import GradientCheckpointingLayer

from omniloom.backbone.base import BackboneOutput, CacheView
from omniloom.backbone.places import Places
from omniloom.backbone.stock import StockModel
from omniloom.errors import ConfigError, PlanError
from omniloom.sequence import Plan

__all__ = ["MemoryCache", "Seq2SeqLM"]

_RELATIVE = ("t5", "mt5", "umt5")
"""Types whose positions are differences of slots, so that documents may follow one another in a row."""

_KNOWN = (*_RELATIVE, "bart")
"""Types whose heads are known: what they do to hidden states in front of the vocabulary differs."""

_MEMORY_MAPS = (".EncDecAttention.k", ".EncDecAttention.v", ".encoder_attn.k_proj", ".encoder_attn.v_proj")
"""Maps in the decoder that read the encoder's states."""

_MEMORY = "states of the encoder"  # no adapter can have this name


class MemoryCache(EncoderDecoderCache):
    """transformers' cache of an encoder-decoder, with what the encoder gave: `states` (B, M, D) and `mask` (B, M)."""

    states: Tensor
    mask: Tensor


class Seq2SeqLM(StockModel):
    """An encoder-decoder language model behind the slots of a plan; its options are those of `StockModel`.

    Most have no chat template: set `template: plain`. Interactions act in the layers of the encoder, where media are
    read; linear layers are reached on both sides. Tap n holds states after layer n of the side a slot is on.
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
        super().__init__(
            AutoModelForSeq2SeqLM,
            id=id,
            revision=revision,
            dtype=dtype,
            template=template,
            system=system,
            weights=weights,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.kind = str(self.lm.config.model_type)
        if self.kind not in _KNOWN:
            raise ConfigError(
                f"the language model {id!r} is of type {self.kind!r}; encoder-decoders known here: {', '.join(_KNOWN)}."
            )
        self.is_maskable = self.kind in _RELATIVE
        self.decoder_start = _start_ids(self.lm)

    @property
    def layers(self) -> list[nn.Module]:
        """The encoder's layers."""
        return [layer for layer in self.lm.get_encoder().modules() if isinstance(layer, GradientCheckpointingLayer)]

    def hook_visible(self, layer: int, name: str, hook: nn.Module, context: Any) -> None:
        raise ConfigError(f"{name!r} narrows what slots may read before them; an encoder reads in both directions.")

    def hook_kept(self, layer: int, name: str, hook: nn.Module, context: Any) -> None:
        raise ConfigError(f"{name!r} lets slots pass by layers; a decoder reads what the encoder made of each of them.")

    def forward(self, embeds: Tensor, plan: Plan, *, cache: Any = None, taps: Sequence[int] = ()) -> BackboneOutput:
        read, said = _stream(plan, 1), _stream(plan, 0)
        self._check(plan, read, said, has_cache=cache is not None)
        self._checkpoint_layers(torch.is_grad_enabled() and cache is None)
        is_packed = plan.is_packed
        with self._facts_of(read):
            encoded = self.lm.get_encoder()(
                inputs_embeds=read.take(embeds),
                attention_mask=self._mask(read, read) if is_packed else read.mask,
                output_hidden_states=bool(taps),
                return_dict=True,
            )
        states = encoded.last_hidden_state
        if cache is not None:
            cache.states, cache.mask = states, read.mask
        decoded = None
        if said.length:
            with self._facts_of(said, memory=read):
                decoded = self.lm.get_decoder()(
                    inputs_embeds=said.take(embeds),
                    attention_mask=self._mask(said, said, is_causal=True) if is_packed else said.mask,
                    encoder_hidden_states=states,
                    encoder_attention_mask=self._mask(said, read) if is_packed else read.mask,
                    past_key_values=cache,
                    use_cache=cache is not None,
                    output_hidden_states=bool(taps),
                    return_dict=True,
                )
        hidden = self._joined(plan, (read, states), (said, None if decoded is None else decoded.last_hidden_state))
        found = {}
        for layer in taps:
            below, above = (None if out is None else _tap(out, layer) for out in (encoded, decoded))
            found[layer] = self._joined(plan, (read, below), (said, above))
        return BackboneOutput(hidden, found)

    def _joined(self, plan: Plan, *streams: tuple[Places, Tensor | None]) -> Tensor:
        """(B, L, D) states of both sides in their slots; zeros in padding."""
        given = [(stream, states) for stream, states in streams if states is not None]
        joined = given[0][1].new_zeros(*plan.shape, self.width)
        for stream, states in given:
            joined = stream.put(states.to(joined.dtype), joined)
        return joined

    def _mask(self, queries: Places, keys: Places, *, is_causal: bool = False) -> Tensor | None:
        """(B, 1, L, M), where a slot may read a key of its own document, as this model's layers take it."""
        seen = queries.document[:, :, None] == keys.document[:, None]
        if is_causal:
            seen = seen & seen.new_ones(seen.shape[1:]).tril()
        mask = seen[:, None]
        return self._additive(mask) if self.lm.config._attn_implementation == "eager" else mask

    def _check(self, plan: Plan, read: Places, said: Places, *, has_cache: bool) -> None:
        """Hold a plan to what both sides can run.

        Raises:
            PlanError: a document that the decoder answers and the encoder has nothing of.
            ConfigError: documents or rows that this model cannot keep apart, or slots of the decoder that would see
                what they must say.
        """
        unread = set(said.documents) - set(read.documents)
        if unread or not read.length:
            sample = plan.samples[min(unread)] if unread else plan.samples[0]
            raise PlanError(
                f"the encoder has no slot of sample {sample!r} to read. Plan it with the decoder_start of this model."
            )
        if plan.is_packed and not self.is_maskable:
            raise ConfigError(
                f"a language model of type {self.kind!r} counts slots from the row's begin and cannot keep packed "
                "documents apart. Set `pack: 0`."
            )
        if bool((plan.span[plan.stream == 0] >= 0).any()):
            raise ConfigError("an answer has media whose slots see each other; a decoder reads in order. Show them.")
        if has_cache and (plan.is_packed or len(set(said.counts)) != 1 or not said.length):
            raise ConfigError(
                f"the decoder is to go on behind {sorted(set(said.counts))} slots; rows that are decoded together must "
                "be one document each, with as many slots of the decoder. Plan them with ask=True."
            )

    def new_cache(self) -> MemoryCache:
        """An empty cache for the keys and values of both attentions."""
        return MemoryCache(DynamicCache(), DynamicCache())

    def step(self, embeds: Tensor, view: CacheView) -> Tensor:
        view.valid = torch.cat([view.valid, view.valid.new_ones(view.valid.shape[0], 1)], dim=1)
        self._checkpoint_layers(False)
        out = self.lm.get_decoder()(
            inputs_embeds=embeds,
            encoder_hidden_states=view.cache.states,
            encoder_attention_mask=view.cache.mask,
            past_key_values=view.cache,
            use_cache=True,
            return_dict=True,
        )
        view.next_position = view.next_position + 1
        hidden: Tensor = out.last_hidden_state[:, -1]
        return hidden

    @property
    def _head_scale(self) -> float:
        """What hidden states are multiplied by in front of a head that is tied to the embeddings."""
        config = self.lm.config
        scaled = {"t5": getattr(config, "scale_decoder_outputs", False), "umt5": config.tie_word_embeddings}
        return self.width**-0.5 if scaled.get(self.kind, False) else 1.0

    def head_table(self) -> Tensor:
        return super().head_table() * self._head_scale

    def logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.lm.get_output_embeddings()(hidden * self._head_scale)
        bias = getattr(self.lm, "final_logits_bias", None)
        return logits if bias is None else logits + bias.to(logits.device)

    # -- what hooks know ----------------------------------------------------------------------------------------------

    @contextmanager
    def _facts_of(self, stream: Places, *, memory: Places | None = None) -> Iterator[None]:
        """Hooks are told of the slots of one side; those at maps that read the encoder's states, of the encoder's."""
        context = self._context
        facts = None if context is None else context.facts
        if facts is None:
            yield
            return
        told = stream.facts(facts)
        if memory is not None:
            told = replace(told, sides={**facts.sides, _MEMORY: memory.facts(facts)})
            self._tell_memory_maps()
        with context.of(told):
            yield

    def _tell_memory_maps(self) -> None:
        """Adapters at maps that read the encoder's states get the facts of its slots."""
        for name, part in self.lm.get_decoder().named_modules():
            if name.endswith(_MEMORY_MAPS) and hasattr(part, "adapters") and not hasattr(part, "_told"):
                part._told = (self._context, [])  # not children: the model's
                part.register_forward_pre_hook(_enter_memory)
                part.register_forward_hook(_leave_memory, always_call=True)


def _stream(plan: Plan, number: int) -> Places:
    """The slots of one side."""
    return Places.of((plan.stream == number) & ~plan.is_padding, plan.document)


# Functions of the module and not closures: a copied layer must run its own hooks.


def _enter_memory(part: Any, args: Any) -> None:
    context, before = part._told
    before.append(context.facts)
    if context.facts is not None:
        context.facts = context.facts.sides.get(_MEMORY, context.facts)


def _leave_memory(part: Any, args: Any, output: Any) -> None:
    context, before = part._told
    context.facts = before.pop()


def _tap(out: Any, layer: int) -> Tensor:
    states: Sequence[Tensor] = out.hidden_states
    if not 0 <= layer < len(states):
        raise ConfigError(f"tap {layer} is asked for, but one side of the language model has {len(states) - 1} layers.")
    return states[layer]


def _start_ids(lm: Any) -> tuple[int, ...]:
    """What every answer begins with: the decoder's start token, and the token that `generate` forces behind it."""
    config = lm.generation_config
    known = [config.decoder_start_token_id, getattr(lm.config, "decoder_start_token_id", None), config.bos_token_id]
    start = next((token for token in known if token is not None), None)
    if start is None:
        raise ConfigError(
            "the language model does not say with which token its decoder starts (decoder_start_token_id)."
        )
    forced = config.forced_bos_token_id
    return (start,) if forced is None else (start, forced)
