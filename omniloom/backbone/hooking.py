"""The doors of any stock decoder of transformers: its layers found by what they are, not by the model's name.

Hidden states pass through module hooks. Attention is reached through transformers' own table of attention
functions: a hooked layer gets a configuration of its own that names the function below, which runs the stock one and
adds what the hooks give; masks are made from the model's configuration, as before. A layer that runs again for its
gradient (checkpointing) is given the facts it had.
"""

from __future__ import annotations

import copy
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from omniloom.backbone.base import Backbone
from omniloom.backbone.doors import HookedFFN, LayerDoors, open_door
from omniloom.backbone.narrowing import narrow, require_known_call, widen
from omniloom.errors import ConfigError

__all__ = ["HookableLayers"]

_PREFIX = "omniloom_"
_FFN_NAMES = ("mlp", "feed_forward", "feedforward", "ffn", "block_sparse_moe", "moe")


class HookableLayers(Backbone):
    """A backbone around a transformers model `lm`, with doors in its layers."""

    lm: Any
    _context: Any = None

    @property
    def layers(self) -> list[nn.Module]:
        """The decoder layers in order; empty where they cannot be told from other modules."""
        count = getattr(self.lm.config.get_text_config(), "num_hidden_layers", None)
        for part in self.lm.modules():
            if isinstance(part, nn.ModuleList) and len(part) == count:
                if all(isinstance(layer, GradientCheckpointingLayer) for layer in part):
                    return list(part)
        return []

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def remember(self, context: Any) -> None:
        self._context = context

    def hook_before(self, layer: int, name: str, hook: nn.Module, context: Any) -> None:
        self.remember(context)
        open_door(self._layer(layer), "before", name, hook, context)

    def hook_after(self, layer: int, name: str, hook: nn.Module, context: Any) -> None:
        self.remember(context)
        open_door(self._layer(layer), "after", name, hook, context)

    def hook_attention(self, layer: int, name: str, hook: nn.Module, context: Any) -> None:
        self._hook_attention(layer, "attention", name, hook, context)

    def hook_visible(self, layer: int, name: str, hook: nn.Module, context: Any) -> None:
        self._require_masks()
        self._hook_attention(layer, "visible", name, hook, context)

    def hook_kept(self, layer: int, name: str, hook: nn.Module, context: Any) -> None:
        self._require_masks()
        owner = self._layer(layer)
        if layer == 0:
            raise ConfigError(f"{name!r} lets slots pass by layer 0, whose cache tells how many slots there were.")
        if not self.is_maskable:
            raise ConfigError(
                f"{name!r} lets slots pass by layers of a {self.lm.config.model_type!r}, which counts slots or goes "
                "from one to the next. Take a language model with attention by positions alone."
            )
        require_known_call(owner)
        self._hook_attention(layer, "kept", name, hook, context)
        doors: Any = owner.adapters
        if len(list(doors.at("kept"))) == 1:
            owner.register_forward_pre_hook(narrow, with_kwargs=True)  # behind the hooks before a layer
            owner.register_forward_hook(widen, prepend=True)

    def hook_scores(self, layer: int, name: str, hook: nn.Module, context: Any) -> None:
        self._hook_attention(layer, "scores", name, hook, context)

    def _require_masks(self) -> None:
        if self.lm.config._attn_implementation not in ("sdpa", "eager"):
            raise ConfigError(
                f"a hook on what slots may read needs attention that takes a mask (sdpa or eager), "
                f"the model runs {self.lm.config._attn_implementation!r}."
            )

    def _hook_attention(self, layer: int, place: str, name: str, hook: nn.Module, context: Any) -> None:
        self.remember(context)
        attention = _attention_of(self._layer(layer))
        doors = open_door(self._layer(layer), place, name, hook, context)
        if not hasattr(attention, "_doors"):
            attention._doors = (doors,)  # not a child here: it is the layer's
            attention.config = _hooked_config(attention.config)

    def attention(self, layer: int) -> nn.Module:
        found: nn.Module = _attention_of(self._layer(layer))
        return found

    def attention_heads(self, layer: int) -> int:
        return int(_attention_of(self._layer(layer)).config.num_attention_heads)

    def hook_ffn(self, layer: int, name: str, hook: nn.Module, context: Any) -> None:
        self.remember(context)
        owner = self._layer(layer)
        place = _ffn_name(owner)
        doors = open_door(owner, "ffn", name, hook, context)
        stock = getattr(owner, place)
        if not isinstance(stock, HookedFFN):
            setattr(owner, place, HookedFFN(stock, doors))

    def ffn(self, layer: int) -> nn.Module:
        owner = self._layer(layer)
        stock: nn.Module = getattr(owner, _ffn_name(owner))
        return stock.base if isinstance(stock, HookedFFN) else stock

    def _layer(self, index: int) -> nn.Module:
        layers = self.layers
        if not 0 <= index < len(layers):
            raise ConfigError(
                f"the language model has {len(layers)} layers that can be hooked, none is number {index}."
            )
        return layers[index]

    def checkpoint_contexts(self) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        """For torch's checkpointing: what surrounds a layer's pass, and its second pass for the gradient."""
        if self._context is None:
            return nullcontext(), nullcontext()
        return nullcontext(), _again(self._context, self._context.facts)


@contextmanager
def _again(context: Any, facts: Any) -> Iterator[None]:
    """The facts of the first pass; what the second adds to the loss has been counted."""
    losses, context.losses = context.losses, {}
    try:
        with context.of(facts):
            yield
    finally:
        context.losses = losses


# -- attention --------------------------------------------------------------------------------------------------------


def _attention_of(layer: nn.Module) -> Any:
    """The layer's self-attention, if it asks transformers' table for its function.

    Raises:
        ConfigError: there is none, or several.
    """
    found = [part for part in layer.modules() if _asks_the_table(type(part))]
    found = [part for part in found if not getattr(part, "is_cross_attention", False)]
    if len(found) != 1 or getattr(found[0], "reorder_and_upcast_attn", False):
        raise ConfigError(
            f"the attention of {type(layer).__name__} cannot be hooked: it does not run through transformers' "
            "attention interface. Take another language model, or an interaction that acts between layers."
        )
    return found[0]


def _asks_the_table(kind: type) -> bool:
    forward = inspect.unwrap(getattr(kind, "forward", lambda: None))
    return kind.__module__.startswith("transformers.") and "ALL_ATTENTION_FUNCTIONS" in forward.__code__.co_names


def _hooked_config(config: Any) -> Any:
    """A copy of a configuration that names the hooked form of its attention function."""
    stock = config._attn_implementation
    name = _PREFIX + stock
    AttentionInterface.register(name, hooked_attention)
    if stock in ALL_MASK_ATTENTION_FUNCTIONS:
        AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[stock])
    config = copy.copy(config)
    config._attn_implementation_internal = name  # the setter would rename the parts that both configurations share
    return config


def hooked_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """transformers' attention function of a hooked layer: the stock one, and beside it the hooks."""
    doors: LayerDoors = module._doors[0]
    stock = module.config._attn_implementation.removeprefix(_PREFIX)
    default: Any = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    function: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(stock, default)
    scale = kwargs.get("scaling")
    scaled = query * (query.shape[-1] ** -0.5 if scale is None else scale)
    doors.watched(scaled, key)
    allowed, kept = doors.visible(query.shape[2], key.shape[2]), doors.kept
    if kept is not None:
        attention_mask = kept.mask(attention_mask)
        # In a prompt without a mask, places that only fill a row are behind all others: causal attention sees none.
        if not kept.is_even and (attention_mask is not None or doors.passing is None):
            allowed = kept.is_slot(key.shape[2]) if allowed is None else allowed & kept.is_slot(key.shape[2])
    if allowed is not None:
        attention_mask = _narrowed(attention_mask, allowed, query, key, is_additive=stock == "eager")
    output, weights = function(module, query, key, value, attention_mask, **kwargs)
    added = doors.beside(scaled, module)
    if added is not None:
        output = output + added.transpose(1, 2).to(output.dtype)
    return output, weights


def _narrowed(mask: Tensor | None, allowed: Tensor, query: Tensor, key: Tensor, *, is_additive: bool) -> Tensor:
    """A layer's mask, and nothing that is not allowed beside; no mask means causal."""
    if mask is None:
        slots, keys = query.shape[2], key.shape[2]
        mask = torch.ones(slots, keys, dtype=torch.bool, device=query.device).tril(keys - slots)[None, None]
        if is_additive:
            least = torch.finfo(query.dtype).min
            mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, least)
    if mask.dtype == torch.bool:
        return mask & allowed
    return mask.masked_fill(~allowed, torch.finfo(mask.dtype).min)


# -- feed-forward -----------------------------------------------------------------------------------------------------


def _ffn_name(layer: nn.Module) -> str:
    """The attribute that holds a layer's feed-forward.

    Raises:
        ConfigError: it is spread over the layer itself, or gives more than hidden states.
    """
    names = [name for name in _FFN_NAMES if isinstance(getattr(layer, name, None), nn.Module)]
    if len(names) == 1:
        source = inspect.getsource(inspect.unwrap(type(layer).forward))
        gives_more = re.search(rf",\s*\w+\s*=\s*self\.{names[0]}\(", source)
        if not gives_more:
            return names[0]
    raise ConfigError(
        f"the feed-forward of {type(layer).__name__} cannot be replaced: it is no module of its own that gives hidden "
        "states alone. Take another language model, or another interaction."
    )
