"""A layer that some slots of a prompt pass by: what it is given instead, and what it gives back.

Between layers all slots are there. In front of a narrowed layer those that it keeps move together, with their positions
and rotations; behind it they return to their slots, and the others are as they were. The layer's cache holds keys of
what it kept, so masks over all slots are cut to those while the answer is decoded, too.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from omniloom.backbone.places import Places
from omniloom.errors import ConfigError

__all__ = ["Narrowing", "narrow", "require_known_call", "widen"]

_BY_SLOT = {"position_ids": 1, "position_embeddings": 2}
"""What goes by slots beside hidden states and masks: which axis, counted from the end, the slots are."""

_KNOWN = {
    *_BY_SLOT, "hidden_states", "attention_mask", "past_key_values", "layer_past", "use_cache", "output_attentions",
    "encoder_hidden_states", "encoder_attention_mask", "kwargs",
}  # fmt: skip


class Narrowing:
    """Which slots of a prompt a layer keeps: `runs` (B, L) bool; padding never.

    `rows`, `slots`: B, L. `places`: the slots that are kept, (B, M). `slot` (B, M): the one at each place; where none
    is, that of the first place, so that every place has something to read. `is_even`: there is no such place.
    """

    def __init__(self, runs: Tensor, facts: Any) -> None:
        self.places = Places.of(runs & (facts.document >= 0), facts.document)
        self.rows, self.slots = runs.shape
        slot = self.places.take(torch.arange(self.slots, device=runs.device).expand(runs.shape))
        is_real = self.places.document >= 0
        self.slot = torch.where(is_real, slot, slot[:, :1])
        self.is_even = bool(is_real.all())

    def along(self, values: Tensor, axis: int) -> Tensor:
        """(..., B or 1, L, ...) -> (..., B, M, ...); `axis`: that of the slots, counted from the end."""
        last = values.movedim((-axis - 1, -axis), (0, 1))
        row = torch.arange(self.rows, device=self.slot.device)[:, None]
        return last.expand(self.rows, *last.shape[1:])[row, self.slot].movedim((0, 1), (-axis - 1, -axis))

    def mask(self, mask: Tensor | None) -> Tensor | None:
        """(B or 1, H, L or 1, T) over all slots and those behind the prompt -> (B, H, M or 1, M + T - L).

        None stays None: kept slots are in order.
        """
        if mask is None:
            return None
        behind = torch.arange(self.slots, mask.shape[3], device=mask.device).expand(self.rows, -1)
        key = torch.cat([self.slot, behind], 1)
        query = self.slot if mask.shape[2] > 1 else torch.zeros_like(self.slot[:, :1])
        row = torch.arange(self.rows, device=mask.device)[:, None, None]
        by_head = mask.expand(self.rows, -1, -1, -1).transpose(0, 1)
        return by_head[:, row, query[:, :, None], key[:, None]].transpose(0, 1)

    def is_slot(self, keys: int) -> Tensor:
        """(B, 1, 1, T) bool over a layer's keys: what is a slot, and no place that only fills a row."""
        real = torch.nn.functional.pad(self.places.document >= 0, (0, keys - self.places.length), value=True)
        return real[:, None, None]


def require_known_call(layer: Any) -> None:
    """Hold a layer to what can be narrowed.

    Raises:
        ConfigError: it is given something else, which may go by slots as well.
    """
    for name in inspect.signature(layer.forward).parameters:
        if name not in _KNOWN:
            raise ConfigError(
                f"no slot can pass by {type(layer).__name__}: it is given {name!r} beside hidden states, and nothing "
                "tells whether that goes by slots. Take another language model, or no token reduction."
            )


# Functions of the module and not closures: a copied layer must run its own hooks.


def narrow(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """In front of a layer: of a prompt, only the slots it keeps go in, and hooks inside are told of those."""
    doors = layer.adapters
    kept: Narrowing | None = doors.choose()
    if kept is None:
        return None
    call = dict(zip(inspect.signature(layer.forward).parameters, args, strict=False)) | kwargs
    hidden = call.pop("hidden_states")
    for name, axis in _BY_SLOT.items():
        given = call.get(name)
        if isinstance(given, tuple):
            call[name] = tuple(kept.along(part, axis) for part in given)
        elif given is not None:
            call[name] = kept.along(given, axis)
    doors.passing = hidden, doors.context.facts
    doors.context.facts = kept.places.facts(doors.context.facts)
    return (kept.along(hidden, 2),), call


def widen(layer: Any, args: tuple[Any, ...], output: Any) -> Any:
    """Behind a layer: all slots again, those that passed it by as they were."""
    doors = layer.adapters
    if doors.passing is None:
        return output
    (hidden, doors.context.facts), doors.passing = doors.passing, None
    places = doors.kept.places
    if isinstance(output, tuple):
        return (places.put(output[0], hidden), *output[1:])
    return places.put(output, hidden)
