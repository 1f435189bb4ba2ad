"""The contract of fusion before the language model: rows of several items, often of several modalities, as one item."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from torch import nn

from omniloom.projectors.base import Context
from omniloom.sequence import Packed, Shape

__all__ = ["Fuser", "Group"]

Group = Mapping[str, Packed]
"""The items that are fused into one, one item a modality: name of the input -> its rows."""


class Fuser(nn.Module, ABC):
    """Groups of items -> packed rows (S, out_dim), one item a group; the signature starts with (in_dims, out_dim).

    `in_dims`: input -> width of its rows, in the fuser's order; `out_dim`: the language model's width, or another one
    that the fuser sets itself, for a chain of projectors behind it. `forward` and `out_shape` must agree for every
    group. A group holds a part of the inputs where the fuser runs on `any` of them. `context.modality` is the fuser's
    own name.
    """

    in_dims: Mapping[str, int]
    out_dim: int

    @abstractmethod
    def forward(self, groups: Sequence[Group], context: Context) -> Packed:
        """Fused rows of all groups, in order. A fuser without rows of its own gives none: (0, out_dim), no shapes."""

    @abstractmethod
    def out_shape(self, shapes: Mapping[str, Shape]) -> Shape | None:
        """The shape of a fused item from those of its parts; None: it has no rows, its parts keep theirs."""
