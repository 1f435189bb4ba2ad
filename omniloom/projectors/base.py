"""The contract of projection alignment: rows of an encoder -> rows of the language model's width."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from omniloom.sequence import Packed, Shape

__all__ = ["Context", "Projector"]


@dataclass(frozen=True)
class Context:
    """What a projector may know beside its rows.

    `modality`: index of the modality in the table. `embedding`: the language model's (V, D) embedding table.
    """

    modality: int = 0
    embedding: Tensor | None = None


class Projector(nn.Module, ABC):
    """(S, in_dim) packed rows -> (S', out_dim) packed rows; the signature starts with (in_dim, out_dim).

    `forward` and `out_shape` must agree for every item.
    """

    in_dim: int
    out_dim: int

    @abstractmethod
    def forward(self, packed: Packed, context: Context) -> Packed:
        """Projected rows of all items, in order."""

    @abstractmethod
    def out_shape(self, shape: Shape) -> Shape:
        """The shape after projection of an item of this shape. Integers only, no weights."""
