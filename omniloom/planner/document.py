"""A document while it is planned: slots and items in reading order, and what is cut off where it is too long."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from omniloom.planner.items import Piece, Ready
from omniloom.planner.spelling import Edge
from omniloom.sequence import Kind, PlannedItem

__all__ = ["Document", "Slot"]


@dataclass
class Slot:
    """One slot while a document is being written."""

    id: int
    kind: Kind
    segment: int
    modality: int = -1
    item: int = -1
    time_s: float = float("nan")
    learn: bool = False
    weight: float = 1.0
    row: int = -1
    clip: int = -1
    span: int = -1
    stream: int = 0
    is_beside: bool = False


@dataclass
class Document:
    """Slots and items of one sample, in reading order. `stream`: of the slots that are added. `fixed`: segments between
    what an encoder reads and what its decoder says, which are never cut. `edge`: what the next span of text follows."""

    slots: list[Slot] = field(default_factory=list)
    items: list[PlannedItem] = field(default_factory=list)
    segments: int = 0
    clips: int = 0
    spans: int = 0
    stream: int = 0
    fixed: range = range(0)
    edge: Edge = field(default_factory=Edge)

    def add(
        self,
        ids: Sequence[int],
        kind: Kind,
        *,
        learn: bool | Sequence[bool] = False,
        is_joined: bool = False,
        **facts: Any,
    ) -> None:
        """A new segment of these ids, or a continuation of the last one; an empty one is none."""
        if not ids:
            return
        flags = [learn] * len(ids) if isinstance(learn, bool) else learn
        if not is_joined:
            self.segments += 1
        self.slots += [
            Slot(token, kind, self.segments - 1, learn=flag, stream=self.stream, **facts)
            for token, flag in zip(ids, flags, strict=True)
        ]

    def hold(self, planned: PlannedItem, role: str) -> int:
        """A new item that begins with the slot to come; returns its number."""
        length = planned.length if role in ("in", "out") else 0
        self.items.append(replace(planned, role=role, start=len(self.slots), length=length))
        return len(self.items) - 1

    def add_rows(self, ready: Ready, piece: Piece, modality: int, item: int, clip: int, *, is_joined: bool) -> None:
        """Slots for rows of an input item; with `attention`, those that see each other get one span."""
        rows, times = ready.rows[piece.first : piece.stop], ready.times_s
        first = len(self.slots)
        self.add([0] * len(rows), Kind.MEDIA, is_joined=is_joined, modality=modality, item=item, clip=clip)
        frame = 0 if ready.shape.grid is None else ready.shape.grid[1] * ready.shape.grid[2]
        spans: dict[int, int] = {}
        for slot, row, place in zip(self.slots[first:], rows, range(piece.first, piece.stop), strict=True):
            slot.row = row
            slot.time_s = float("nan") if times is None else times[place]
            if ready.path.attention != "causal":
                key = row // frame if ready.path.attention == "frames" and frame else 0
                slot.span = spans.setdefault(key, self.spans + len(spans))
        self.spans += len(spans)

    def cut(self, candidates: Sequence[int], excess: int) -> tuple[list[Slot], int]:
        """The slots that are left when whole segments go, the first candidates first, until `excess` slots have gone;
        and how many still exceed."""
        sizes = [0] * self.segments
        for slot in self.slots:
            sizes[slot.segment] += 1
        gone = set[int]()
        for segment in candidates:
            if excess <= 0:
                break
            gone.add(segment)
            excess -= sizes[segment]
        return [slot for slot in self.slots if slot.segment not in gone], excess

    def leave(self, left: list[Slot]) -> None:
        """Take out everything else: slots, their items, and items without slots that stood in a cut segment.

        What is fused stays with its rows, or beside its segment, and its parts stay with it: those whose own slots are
        cut become sources. A fuser without rows needs all of its parts.
        """
        ids = {id(slot) for slot in left}
        places = [place for place, slot in enumerate(self.slots) if id(slot) in ids]
        filled = {slot.item for slot in left if slot.item >= 0}
        segments = {slot.segment for slot in left}
        beside = {
            index
            for index, item in enumerate(self.items)
            if item.role == "side" and self.slots[min(item.start, len(self.slots) - 1)].segment in segments
        }
        stays = filled | beside
        stays |= {part for index in stays for part in self.items[index].parts}
        rowless = {index for index, item in enumerate(self.items) if item.parts and not item.rows}
        stays |= {index for index in rowless if stays >= set(self.items[index].parts)}
        kept = sorted(stays)
        number = {old: new for new, old in enumerate(kept)}
        for slot in left:
            if slot.item >= 0:
                slot.item = number[slot.item]
        self.items = [self._left(old, old in filled, places, number) for old in kept]
        self.slots = left

    def _left(self, index: int, is_filled: bool, places: list[int], number: dict[int, int]) -> PlannedItem:
        """An item that stays, where it is now; a source, if it had slots and they were cut."""
        item = self.items[index]
        moved = replace(item, start=bisect_left(places, item.start), parts=tuple(number[part] for part in item.parts))
        return replace(moved, role="source", length=0) if item.length and not is_filled else moved
