"""What a slot of a plan holds, and which item fills a run of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from torch import Tensor

from omniloom.sequence.packed import Shape

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
    """One item of the batch and the slots it fills.

    `raw`: what its encoder reads (None for codes and for cached rows). `features`: cached encoder rows (S, E).
    `encoded`: the shape after the encoder; `rows`: rows its projector gives; `keep`: which of them stay, None for
    all. `length` slots from `start` in `row` hold them, in order. `role` "in" items are rows, "out" items are codes.
    """

    modality: str
    role: str
    sample: str
    row: int
    start: int
    length: int
    rows: int
    encoded: Shape | None = None
    raw: Tensor | None = None
    features: Tensor | None = None
    keep: tuple[int, ...] | None = None
    turn: int = 0
