"""The contracts of what reads a medium: a processor on the CPU, an encoder on the model's device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from omniloom.sequence import Packed, Raw, Shape

__all__ = ["Encoder", "Processor"]


class Processor(ABC):
    """Payload -> raw tensor, in the workers. It travels with the weights, so preprocessing cannot drift.

    `payload_kind` names the payload it reads (`omniloom.media` kinds).
    """

    payload_kind: str

    @abstractmethod
    def __call__(self, payload: Any, rng: torch.Generator | None = None) -> Raw:
        """The raw tensor of one item. `rng` None means: no augmentation; the same payload gives the same bytes."""

    @abstractmethod
    def shape(self, raw: Any) -> Shape:
        """The rows the raw tensor stands for before any encoder."""

    def split(self, payload: Any) -> list[Any]:
        """The items one payload becomes; one, unless it is cut in time."""
        return [payload]

    def begins_s(self, payload: Any) -> list[float]:
        """When each item of `split` begins, in seconds from the payload's own start; all 0 where it has no clock."""
        begins = [0.0]
        for piece in self.split(payload)[:-1]:
            begins.append(begins[-1] + (getattr(piece, "duration_s", None) or 0.0))
        return begins


class Encoder(nn.Module, ABC):
    """Raw tensors -> packed rows (S, out_dim).

    `out_dim` is the width E of the rows. `forward` and `out_shape` must agree: for every item the number of rows
    is `out_shape(processor.shape(raw)).len`. `tap_dims`: layer -> width of the rows of that inner layer, which an
    encoder with taps puts into `Packed.taps`, as many rows an item as it gives out. `pooled_dim`: width of
    `Packed.pooled`, None where there is none.
    """

    out_dim: int
    pooled_dim: int | None = None

    @property
    def tap_dims(self) -> Mapping[int, int]:
        """Layer -> width of its rows in `Packed.taps`; empty for an encoder without taps."""
        return {}

    @abstractmethod
    def forward(self, raws: Sequence[Any]) -> Packed:
        """Rows of all items, in order."""

    @abstractmethod
    def out_shape(self, shape: Shape) -> Shape:
        """The shape of the rows of an item whose raw tensor has this shape. Integers only, no weights."""

    @abstractmethod
    def minimal_raw(self) -> Raw:
        """The smallest raw tensor the encoder takes; a batch without the modality may run it."""
