"""The contract of a language model's body, and the one door through which a plan becomes an attention mask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from omniloom.errors import ConfigError
from omniloom.sequence import Plan

__all__ = ["Backbone", "BackboneOutput", "CacheView", "attention_mask"]


@dataclass
class BackboneOutput:
    """`hidden`: (B, L, D) after the last norm. `taps`: layer -> (B, L, D), 0 the embeddings, n after layer n."""

    hidden: Tensor
    taps: dict[int, Tensor]


@dataclass
class CacheView:
    """A key-value cache and which of its slots are real.

    `cache`: transformers' Cache. `valid`: (B, T) bool over the slots it holds. `next_position`: (B,) the position
    of the next slot of each row.
    """

    cache: Any
    valid: Tensor
    next_position: Tensor

    @property
    def is_plain(self) -> bool:
        """No gaps: every cached slot is real, so causal attention needs no mask."""
        return bool(self.valid.all())

    def mask(self, *, window: int | None = None) -> Tensor:
        """(B, 1, 1, T) bool, True where the newest slot of a row may read. A `window` counts positions, not slots:
        padding between a prompt and its answer takes no room in it."""
        if window is None:
            return self.valid[:, None, None]
        position = self.valid.cumsum(1) - 1
        return (self.valid & (position > position[:, -1:] - window))[:, None, None]


class Backbone(nn.Module, ABC):
    """Embeddings in, hidden states and logits out, over slots that a plan describes.

    `is_maskable`: masks and positions alone decide what a slot reads. If not (recurrent layers, attention biased by
    slot numbers), documents cannot be packed and rows of different lengths cannot be decoded together. `position_axes`:
    how many axes its positions may have. `decoder_start`: of an encoder-decoder, the ids that begin an answer.
    `begins`: what its tokenizer puts before a text stands before a conversation too.
    """

    width: int
    vocab_size: int
    stop_ids: frozenset[int]
    is_maskable: bool = True
    position_axes: int = 1
    decoder_start: tuple[int, ...] | None = None
    begins: bool = False

    @property
    def inner_width(self) -> int:
        """The width of the hidden states that hooks see; most often that of the embeddings, `width`."""
        return self.width

    @property
    def num_layers(self) -> int:
        """How many layers hooks may act on; they are counted from 0."""
        return 0

    def remember(self, context: Any) -> None:
        """Told whose facts its hooks read, so that a layer that runs again for its gradient reads them again."""

    def hook_before(self, layer: int, name: str, hook: nn.Module, context: Any) -> None:
        """Put a module under `name` in front of a layer: `hook(h, facts)` takes and gives (B, L, D) hidden states.

        `facts` are `context.facts`, those of the slots that run.

        Raises:
            ConfigError: the model has no such layer, or none that can be hooked.
        """
        raise _no_door(self, "hidden states before a layer")

    def hook_after(self, layer: int, name: str, hook: nn.Module, context: Any) -> None:
        """Put a module under `name` behind a layer: `hook(h, facts)` takes and gives (B, L, D) hidden states."""
        raise _no_door(self, "hidden states after a layer")

    def hook_attention(self, layer: int, name: str, hook: nn.Module, context: Any) -> None:
        """Put a module under `name` beside a layer's self-attention.

        `hook(query, attention, facts)` gives (B, H, L, d), added to what the heads mixed before the output projection,
        or None for nothing. `query` is (B, H, L, d), rotated and scaled: its products with keys are scores. `attention`
        is the layer's own module, whose key and value projections a hook may use.
        """
        raise _no_door(self, "attention")

    def hook_visible(self, layer: int, name: str, hook: nn.Module, context: Any) -> None:
        """Put a module under `name` in front of a layer's self-attention that narrows what slots may read.

        `hook(slots, keys, facts)` gives (B, 1, L or 1, T) bool over the L slots that run and the T keys there are, the
        cached ones first; None lets every slot read what it would. A slot must be left something to read.
        """
        raise _no_door(self, "attention mask")

    def hook_kept(self, layer: int, name: str, hook: nn.Module, context: Any) -> None:
        """Put a module under `name` in front of a layer that says which slots of a prompt run through it.

        `hook(facts)` gives (B, L) bool, or None for all. The others pass the layer by: they come out as they went in,
        and its cache has no keys of them, so no later slot reads them there. Every row must keep a slot. Hooks inside
        the layer get the facts of slots that run, those before and after it of all; what slots may read is asked of
        all, and cut. Several hooks keep what all of them do.

        Raises:
            ConfigError: layer 0; a model whose slots are counted, or whose layers are given more than is known here.
        """
        raise _no_door(self, "slots")

    def hook_ffn(self, layer: int, name: str, hook: nn.Module, context: Any) -> None:
        """Put a module under `name` in the place of a layer's feed-forward: `hook(h, base, facts)` gives (B, L, D) for
        (B, L, D); `base` is the stock feed-forward, which it may call or copy."""
        raise _no_door(self, "feed-forward")

    def hook_scores(self, layer: int, name: str, hook: nn.Module, context: Any) -> None:
        """Put a module under `name` that watches a layer's self-attention: `hook(query, key, facts)` is told, before
        that runs, (B, H, L, d) queries, rotated and scaled, and (B, G, T, d) keys of what runs, cached ones first."""
        raise _no_door(self, "attention")

    def attention(self, layer: int) -> nn.Module:
        """The self-attention of a layer, as hooks beside it will get it."""
        raise _no_door(self, "attention")

    def attention_heads(self, layer: int) -> int:
        """How many query heads a layer's self-attention has."""
        raise _no_door(self, "attention")

    def ffn(self, layer: int) -> nn.Module:
        """The stock feed-forward of a layer, for hooks that copy it."""
        raise _no_door(self, "feed-forward")

    @abstractmethod
    def embed(self, ids: Tensor) -> Tensor:
        """(B, L) ids -> (B, L, D) embeddings."""

    @abstractmethod
    def embedding_table(self) -> Tensor:
        """(V, D) input embeddings of the text vocabulary."""

    def head_table(self) -> Tensor:
        """(V, D) rows of the output head; the input embeddings where the two are tied."""
        return self.embedding_table()

    @abstractmethod
    def forward(self, embeds: Tensor, plan: Plan, *, cache: Any = None, taps: Sequence[int] = ()) -> BackboneOutput:
        """All slots of a plan; with `cache`, its keys and values are kept in it."""

    @abstractmethod
    def new_cache(self) -> Any:
        """An empty key-value cache for `forward` and `step`."""

    @abstractmethod
    def step(self, embeds: Tensor, view: CacheView) -> Tensor:
        """(B, 1, D) embeddings of one more slot per row -> (B, D) hidden; the view grows by the slot."""

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """(N, D) selected hidden states -> (N, V) logits. Select before you call: this is the costly product."""


def _no_door(backbone: Backbone, what: str) -> ConfigError:
    return ConfigError(
        f"{type(backbone).__name__} has no door for hooks at its {what}. Take another backbone, or another interaction."
    )


def attention_mask(plan: Plan, *, window: int | None = None) -> Tensor | None:
    """(B, 1, L, L) bool, True where slot q may read slot k; None if plain causal attention says the same.

    Documents of one row never see one another; slots of one span see each other in both directions. Padding stands
    behind every document, so under causal attention nothing real can read it. `window`: how many positions back a
    sliding layer sees.
    """
    has_spans = plan.has_spans
    if not plan.is_packed and window is None and not has_spans:
        return None
    slots = torch.arange(plan.shape[1], device=plan.ids.device)
    causal = slots[:, None] >= slots[None, :]
    same = plan.document[:, :, None] == plan.document[:, None, :]
    mask = causal & same
    if window is not None:
        mask = mask & (slots[:, None] - slots[None, :] < window)
    if has_spans:
        mask = mask | (same & (plan.span[:, :, None] == plan.span[:, None, :]) & (plan.span >= 0)[:, :, None])
    return mask[:, None]
