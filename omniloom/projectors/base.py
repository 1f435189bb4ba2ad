"""The contract of projection alignment: rows of an encoder -> rows of the language model's width."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn

from omniloom.sequence import Context, Packed, Shape

__all__ = ["Context", "Projector"]


class Projector(nn.Module, ABC):
    """(S, in_dim) packed rows -> (S', out_dim) packed rows; the signature starts with (in_dim, out_dim).

    `forward` and `out_shape` must agree for every item. `is_late`: only `forward` knows how many rows an item becomes;
    its items are projected before they are planned, and `out_shape` is not asked.
    """

    in_dim: int
    out_dim: int
    is_late: bool = False

    @abstractmethod
    def forward(self, packed: Packed, context: Context) -> Packed:
        """Projected rows of all items, in order."""

    @abstractmethod
    def out_shape(self, shape: Shape) -> Shape:
        """The shape after projection of an item of this shape. Integers only, no weights."""

    def serve(self, modality: str) -> None:
        """Told once for every modality that uses the part, in the order of the table, before weights are loaded.

        A part with parameters of its own per modality makes them here, by the modality's name, so that they can be
        selected, saved and added one modality at a time.
        """
