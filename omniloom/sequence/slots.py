"""What a slot of a plan holds, and which item fills a run of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from omniloom.sequence.packed import Packed, Shape
from omniloom.sequence.raws import Raw

__all__ = ["IGNORE", "Kind", "PlannedItem"]

IGNORE = -100


class Kind(IntEnum):
    """What a slot holds: nothing, a token of text, a boundary of an item, a row of an encoder, a code."""

    PAD = 0
    TEXT = 1
    MARKER = 2
    MEDIA = 3
    CODE = 4


@dataclass(frozen=True)
class PlannedItem:
    """One item of the batch and the slots it fills: those whose `Plan.item` is its index, in order.

    `role`: "in", rows in slots; "out", codes in slots; "side", rows that fill no slots and are read inside the layers;
    "source", rows that a fuser makes into those of another item. `raw`: what its encoder reads (None for codes and for
    cached rows). `features`: cached encoder rows of this one item. `late`: its projected rows, where their number was
    not known before. `encoded`: the shape after the encoder; `shape`: after the projectors; `rows`: rows the projectors
    give; `keep`: which of them stay, None for all. `length` slots hold them, the first is `start`. `parts`: the items
    that were fused into this one. `instruction`: the text of its own turn.
    """

    modality: str
    role: str
    sample: str
    row: int
    start: int
    length: int
    rows: int
    encoded: Shape | None = None
    raw: Raw | None = None
    features: Packed | None = None
    keep: tuple[int, ...] | None = None
    turn: int = 0
    shape: Shape | None = None
    late: Packed | None = None
    parts: tuple[int, ...] = ()
    instruction: str = ""

    def moved(self, *, row: int | None = None, slots: int = 0, items: int = 0, turns: int = 0) -> PlannedItem:
        """The item in another row, or behind so many more slots, items and turns."""
        return replace(
            self,
            row=self.row if row is None else row,
            start=self.start + slots,
            turn=self.turn + turns,
            parts=tuple(part + items for part in self.parts),
        )
