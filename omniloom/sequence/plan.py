"""The Plan: for every slot of a batch, what stands there, where it comes from and what it must predict.

Made on the CPU, before any weight of the language model is touched. Splicing, masks, losses, adapter routes,
packing, the key-value cache, evaluation and serving read the same Plan; nothing searches for magic ids.

A row is a run of whole documents; padding follows. A label stands on the slot that predicts it, so nothing is
shifted later: `label[b, l]` is the id that the hidden state of slot l must give, the id of slot l + 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from omniloom.errors import PlanError
from omniloom.sequence.explain import explain
from omniloom.sequence.proof import prove
from omniloom.sequence.raws import same_raw
from omniloom.sequence.slots import IGNORE, Kind, PlannedItem

__all__ = ["Plan"]

# Fill of a padding slot, by field; the order is the order of explain().
_FILL: dict[str, float] = {
    "ids": 0,
    "kind": int(Kind.PAD),
    "modality": -1,
    "item": -1,
    "source": -1,
    "document": -1,
    "segment": -1,
    "stream": 0,
    "span": -1,
    "time_s": float("nan"),
    "label": IGNORE,
    "weight": 0.0,
    "route": 0,
}


@dataclass(frozen=True)
class Plan:
    """Per-slot facts of a batch; every tensor is (B, L) but `position`, which is (P, B, L).

    ids: token id; 0 where a row of an encoder stands. kind: a `Kind`. modality: index into `modalities`, -1 for
    none. item: index into `items`, -1 for none. source: row in the packed rows of its modality, -1 for none.
    document: index of the document, counted over the batch, -1 for padding. segment: index of the segment in its
    document; a cut may only fall where it changes. stream: 0; 1 marks the encoder side of an encoder-decoder. span:
    slots of one span (a number of its document) see each other in both directions, -1 for none; it lies in one piece.
    position: restarts at 0 in every document. time_s: seconds, NaN where there is no clock. label: the id that this
    slot must predict, or IGNORE. weight: of that label. route: 0, or 1 + modality index of the slot; adapters and
    experts choose by it. `truncated`: segments cut off to fit a length, `turns`: turns planned, both over the batch.
    """

    ids: Tensor
    kind: Tensor
    modality: Tensor
    item: Tensor
    source: Tensor
    document: Tensor
    segment: Tensor
    stream: Tensor
    span: Tensor
    position: Tensor
    time_s: Tensor
    label: Tensor
    weight: Tensor
    route: Tensor
    items: tuple[PlannedItem, ...]
    modalities: tuple[str, ...]
    samples: tuple[str, ...]
    truncated: int = 0
    turns: int = 0

    # -- size -------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        """(B, L)."""
        return self.ids.shape[0], self.ids.shape[1]

    @property
    def is_padding(self) -> Tensor:
        """(B, L) bool."""
        return self.kind == int(Kind.PAD)

    @property
    def lengths(self) -> Tensor:
        """(B,) slots in use; padding follows them."""
        return (~self.is_padding).sum(1)

    @property
    def is_packed(self) -> bool:
        """Whether any row holds more than one document."""
        first = self.document[:, :1]
        return bool(((self.document != first) & ~self.is_padding).any())

    @property
    def has_spans(self) -> bool:
        """Whether any slots see each other in both directions."""
        return bool((self.span >= 0).any())

    @property
    def next_position(self) -> Tensor:
        """(B,) the position of the slot that would follow each row's last document, on every axis."""
        last = self.document.max(1, keepdim=True).values
        return self.position.amax(0).masked_fill(self.document != last, -1).amax(1) + 1

    @property
    def supervised(self) -> int:
        """How many slots bear a label."""
        return int((self.label != IGNORE).sum())

    def items_of(self, modality: str, role: str = "in") -> list[PlannedItem]:
        """The items of one modality in the order of their packed rows."""
        return [item for item in self.items if item.modality == modality and item.role == role]

    def slots_of(self, index: int) -> Tensor:
        """(length,) the slots of item `index` in its row, in order."""
        return (self.item[self.items[index].row] == index).nonzero()[:, 0]

    def tensors(self) -> dict[str, Tensor]:
        """Every per-slot tensor by name."""
        return {field.name: value for field in fields(self) if isinstance(value := getattr(self, field.name), Tensor)}

    def equals(self, other: Plan) -> bool:
        """Same slots, same items in the same places (payloads are compared by value)."""
        mine, theirs = self.tensors(), other.tensors()
        if self.modalities != other.modalities or len(self.items) != len(other.items):
            return False
        if any(not _same(mine[name], theirs[name]) for name in mine):
            return False
        return all(_same_item(a, b) for a, b in zip(self.items, other.items, strict=True))

    def to(self, device: torch.device | str) -> Plan:
        """The same plan with its tensors on a device; raw items stay where they are."""
        moved: dict[str, Any] = {name: value.to(device) for name, value in self.tensors().items()}
        return replace(self, **moved)

    # -- joining ----------------------------------------------------------------------------------------------

    @classmethod
    def join(cls, rows: Sequence[Sequence[Plan]]) -> Plan:
        """Rows of whole documents as one batch, padded at the end to the longest.

        Each plan given has one row; `join([[a], [b]])` pads, `join([[a, b]])` packs.
        """
        flat = [plan for row in rows for plan in row]
        if not flat:
            raise PlanError("a batch needs at least one plan, got none.")
        modalities = flat[0].modalities
        for plan in flat:
            if plan.shape[0] != 1:
                raise PlanError(f"join takes plans of one row each, got one of {plan.shape[0]} rows.")
            if plan.modalities != modalities:
                raise PlanError(f"plans of different models: {plan.modalities} and {modalities}.")
        length = max(sum(plan.shape[1] for plan in row) for row in rows)
        axes = flat[0].position.shape[0]
        columns = {
            name: torch.full((len(rows), length), fill, dtype=flat[0].tensors()[name].dtype)
            for name, fill in _FILL.items()
        }
        position = torch.zeros(axes, len(rows), length, dtype=torch.long)
        items: list[PlannedItem] = []
        documents = 0
        for index, row in enumerate(rows):
            start = 0
            for plan in row:
                span = slice(start, start + plan.shape[1])
                tensors = plan.tensors()
                for name, column in columns.items():
                    column[index, span] = tensors[name][0]
                columns["document"][index, span] += documents
                columns["item"][index, span] += torch.where(plan.item[0] >= 0, len(items), 0)
                position[:, index, span] = plan.position[:, 0]
                items += [item.moved(row=index, slots=start, items=len(items)) for item in plan.items]
                documents += int(plan.document.max()) + 1
                start += plan.shape[1]
        return cls(
            **columns,
            position=position,
            items=tuple(items),
            modalities=modalities,
            samples=tuple(name for plan in flat for name in plan.samples),
            truncated=sum(plan.truncated for plan in flat),
            turns=sum(plan.turns for plan in flat),
        ).with_sources()

    @classmethod
    def stack(cls, plans: Sequence[Plan]) -> Plan:
        """One document a row, padded."""
        return cls.join([[plan] for plan in plans])

    @classmethod
    def pack(cls, plans: Sequence[Plan], length: int) -> Plan:
        """Documents packed first-fit into rows of at most `length` slots, longest first; attention keeps them apart.

        Raises:
            PlanError: a document is longer than a row.
        """
        rows: list[list[Plan]] = []
        room: list[int] = []
        for plan in sorted(plans, key=lambda plan: -plan.shape[1]):
            need = plan.shape[1]
            if need > length:
                raise PlanError(
                    f"sample {plan.samples[0]!r} fills {need} slots, a packed row holds {length}. Truncate it first."
                )
            place = next((index for index, free in enumerate(room) if free >= need), None)
            if place is None:
                rows.append([])
                room.append(length)
                place = len(rows) - 1
            rows[place].append(plan)
            room[place] -= need
        return cls.join(rows)

    def append(self, other: Plan) -> Plan:
        """The same document, continued by the turns of `other`; the border must be a turn's border.

        Raises:
            PlanError: more than one row or document on either side, or padding; or an answer of a decoder, which its
                encoder reads in the turns after it.
        """
        if bool((self.stream == 1).any()) and bool((self.stream == 0).any()):
            raise PlanError(
                "a plan that ends with what a decoder says cannot go on: in later turns its encoder reads that answer. "
                "Plan all turns again."
            )
        for plan in (self, other):
            if plan.shape[0] != 1 or bool(plan.is_padding.any()) or int(plan.document.max()) != 0:
                raise PlanError("append joins two plans of one row and one document each, without padding.")
        if self.modalities != other.modalities:
            raise PlanError(f"plans of different models: {self.modalities} and {other.modalities}.")
        slots = self.shape[1]
        second = {
            **other.tensors(),
            "item": other.item + torch.where(other.item >= 0, len(self.items), 0),
            "segment": other.segment + int(self.segment.max()) + 1,
            "span": other.span + torch.where(other.span >= 0, int(self.span.max()) + 1, 0),
            "position": other.position + int(self.position.max()) + 1,
        }
        joined: dict[str, Any] = {
            name: torch.cat([value, second[name]], dim=-1) for name, value in self.tensors().items()
        }
        moved = tuple(item.moved(slots=slots, items=len(self.items), turns=self.turns) for item in other.items)
        joined |= {"truncated": self.truncated + other.truncated, "turns": self.turns + other.turns}
        return replace(self, **joined, items=self.items + moved).with_sources()

    def with_sources(self) -> Plan:
        """Number the packed rows of every modality, item by item, in the order of `items`."""
        source = torch.full_like(self.source, -1)
        seen = dict.fromkeys(self.modalities, 0)
        for index, item in enumerate(self.items):
            if item.role == "in" and item.length:
                first = seen[item.modality]
                source[item.row, self.slots_of(index)] = torch.arange(first, first + item.length, device=source.device)
                seen[item.modality] += item.length
        return replace(self, source=source)

    # -- proof ------------------------------------------------------------------------------------------------

    def check(self) -> Plan:
        """Hold the plan to its own rules; returns it.

        Raises:
            PlanError: an item's run is not as long as its rows, a label is off its slot, source rows are not those of
                the items, positions do not count from 0 in every document, a document is not in one piece, a route is
                not its slot's, or padding stands before the end.
        """
        prove(self)
        return self

    def explain(self, decode: Callable[[list[int]], str] | None = None) -> str:
        """The plan as a table, one line per run of slots that belong together.

        `decode` turns the ids of a run of text into text; without it the ids are shown.
        """
        return explain(self, decode)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.equal(torch.nan_to_num(a, nan=-1.0), torch.nan_to_num(b, nan=-1.0)))


def _same_item(a: PlannedItem, b: PlannedItem) -> bool:
    if (a.raw is None) != (b.raw is None) or (a.raw is not None and b.raw is not None and not same_raw(a.raw, b.raw)):
        return False
    for name in ("features", "late"):
        mine, theirs = getattr(a, name), getattr(b, name)
        if (mine is None) != (theirs is None) or (mine is not None and not torch.equal(mine.x, theirs.x)):
            return False
    bare = {"raw": None, "features": None, "late": None}
    return replace(a, **bare) == replace(b, **bare)  # type: ignore[arg-type]
