"""Some slots of a batch, behind one another in every row: one side of an encoder-decoder, or what a layer keeps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

__all__ = ["Places"]


@dataclass(frozen=True)
class Places:
    """`row`, `slot`, `place` (N,): slot `slot` of a row of the plan stands at `place` here. `document` (B, M): of every
    place, -1 where none is."""

    row: Tensor
    slot: Tensor
    place: Tensor
    document: Tensor

    @classmethod
    def of(cls, chosen: Tensor, document: Tensor) -> Places:
        """The slots that are chosen, (B, L) bool; `document`: (B, L) of all slots."""
        row, slot = chosen.nonzero(as_tuple=True)
        place = chosen.cumsum(1)[row, slot] - 1
        found = document.new_full((chosen.shape[0], int(chosen.sum(1).max())), -1)
        return cls(row, slot, place, found.index_put((row, place), document[row, slot]))

    @property
    def length(self) -> int:
        """Places of the longest row."""
        return self.document.shape[1]

    @property
    def counts(self) -> list[int]:
        """How many slots each row has here."""
        return [int(count) for count in (self.document >= 0).sum(1)]

    @property
    def documents(self) -> list[int]:
        """The documents that have a slot here."""
        return [int(number) for number in self.document.unique() if number >= 0]

    @property
    def mask(self) -> Tensor:
        """(B, M) bool, True where a place holds a slot. The first place of a row without any is, too: nothing of it is
        read, and a row of attention over nothing has no gradient."""
        mask = self.document >= 0
        first = torch.arange(self.length, device=mask.device) == 0
        return mask | (first & ~mask.any(1, keepdim=True))

    def take(self, values: Tensor) -> Tensor:
        """(B, L, ...) of the plan's slots to (B, M, ...) of its places; zeros where none is."""
        rows = values.new_zeros(*self.document.shape, *values.shape[2:])
        return rows.index_put((self.row, self.place), values[self.row, self.slot])

    def put(self, states: Tensor, into: Tensor) -> Tensor:
        """(B, M, ...) of its places in their slots of (B, L, ...)."""
        return into.index_put((self.row, self.slot), states[self.row, self.place])

    def facts(self, facts: Any) -> Any:
        """What hooks know of these slots."""
        return replace(facts, route=self.take(facts.route), document=self.document, slot=self.take(facts.slot))
