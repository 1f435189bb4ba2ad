"""From a sample to its Plan: every slot decided on the CPU, with exact counts.

Text is tokenised span by span between the template's special tokens; an item becomes a run of slots as long as its
composed shape says; an output item becomes begin, codes and end of its block. Only what the assistant says is
learned, and the token that ends its turn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

import torch

from omniloom.errors import PlanError, did_you_mean
from omniloom.planner.paths import ModalityRow
from omniloom.planner.template import Template
from omniloom.sequence import IGNORE, Codes, Item, Kind, Packed, Plan, PlannedItem, Sample, Text, Turn, Vocabulary

__all__ = ["Overflow", "Planner"]

Overflow = Literal["refuse", "end", "start"]


@dataclass
class _Slot:
    """One slot while a document is being written."""

    id: int
    kind: Kind
    segment: int
    modality: int = -1
    item: int = -1
    time_s: float = float("nan")
    learn: bool = False
    weight: float = 1.0


@dataclass
class _Document:
    """Slots and items of one sample, in reading order."""

    slots: list[_Slot] = field(default_factory=list)
    items: list[PlannedItem] = field(default_factory=list)
    segments: int = 0

    def add(self, ids: Sequence[int], kind: Kind, *, learn: bool | Sequence[bool] = False, **facts: Any) -> None:
        """A new segment of these ids; an empty one is none."""
        if not ids:
            return
        flags = [learn] * len(ids) if isinstance(learn, bool) else learn
        self.slots += [
            _Slot(token, kind, self.segments, learn=flag, **facts) for token, flag in zip(ids, flags, strict=True)
        ]
        self.segments += 1


class Planner:
    """Makes plans for one model: its tokenizer, template, table of modalities and vocabulary.

    `max_length`: slots a document may fill; `overflow`: what happens to a longer one: "refuse" it, or cut whole
    segments at its "end" or its "start" (after the opening), and count them.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: Template,
        rows: Mapping[str, ModalityRow],
        vocabulary: Vocabulary,
        *,
        max_length: int | None = None,
        overflow: Overflow = "refuse",
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.rows = rows
        self.vocabulary = vocabulary
        self.max_length = max_length
        self.overflow = overflow
        self.modalities = tuple(rows)
        self._spans: dict[str, tuple[int, ...]] = {}
        # A tokenizer splits its special tokens on demand, but not the other tokens that were added to it, such as
        # `</think>`. Cut behind its first character, one of these is the text it looks like.
        added = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, added)) if added else r"(?!)")

    def plan(
        self, sample: Sample, *, ask: bool = False, opening: bool = True, rng: torch.Generator | None = None
    ) -> Plan:
        """The plan of one sample, one row.

        `ask`: end with the assistant's prefix, for generation. `opening` False plans turns that continue an earlier
        plan: no opening text before them. `rng`: for processors that augment; None for none.

        Raises:
            PlanError: an unknown modality, an item its modality cannot take, or a document that does not fit.
        """
        document = _Document()
        if opening:
            starts_with_system = bool(sample.turns) and sample.turns[0].role == "system"
            head = self.template.bos if starts_with_system else self.template.head
            document.add(head, Kind.TEXT)
        opened = document.segments
        for number, turn in enumerate(sample.turns):
            self._add_turn(document, turn, number, sample.id, rng)
        asked = document.segments
        if ask:
            document.add(self._around("prefix", "assistant"), Kind.TEXT)
        if not document.slots:
            raise PlanError(f"sample {sample.id!r} has no turns, so there is nothing to plan.")
        if not opening and document.slots[0].learn:
            raise PlanError(
                f"sample {sample.id!r} continues a plan with a learned token, whose label would stand in the plan "
                "before it. Plan that answer together with the turn it answers."
            )
        truncated = self._fit(document, range(opened, asked), sample.id)
        return replace(self._finish(document, sample.id, truncated), turns=len(sample.turns)).check()

    def batch(self, plans: Sequence[Plan], *, pack: int = 0) -> Plan:
        """Plans of single samples as one batch: padded, or packed into rows of `pack` slots."""
        return Plan.pack(plans, pack) if pack else Plan.stack(plans)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the language model's own ids."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def text_ids(self, text: str) -> tuple[int, ...]:
        """The ids of a span of plain text; special tokens written in it are text."""
        if text not in self._spans:
            if len(self._spans) > 100_000:
                self._spans.clear()
            cuts = [0, *(match.start() + 1 for match in self._control.finditer(text)), len(text)]
            pieces = [text[start:end] for start, end in pairwise(cuts)]
            encoded = [self.tokenizer(piece, add_special_tokens=False, split_special_tokens=True) for piece in pieces]
            self._spans[text] = tuple(token for piece in encoded for token in piece["input_ids"])
        return self._spans[text]

    # -- turns ------------------------------------------------------------------------------------------------

    def _around(self, side: Literal["prefix", "suffix"], role: str) -> tuple[int, ...]:
        table = getattr(self.template, side)
        if role not in table:
            raise PlanError(f"the chat template has no {role} turn. Leave that turn out, or set `template: plain`.")
        ids: tuple[int, ...] = table[role]
        return ids

    def _add_turn(self, document: _Document, turn: Turn, number: int, sample: str, rng: torch.Generator | None) -> None:
        learn = turn.role == "assistant" if turn.learn is None else turn.learn
        document.add(self._around("prefix", turn.role), Kind.TEXT)
        for part in _merged(turn.parts):
            if isinstance(part, Text):
                flag = learn if part.learn is None else part.learn
                document.add(self.text_ids(part.text), Kind.TEXT, learn=flag, weight=part.weight)
            else:
                self._add_item(document, part, turn, number, sample, learn, rng)
        suffix = self._around("suffix", turn.role)
        ends = self.template.learned_suffix if turn.role == "assistant" and learn else 0
        document.add(suffix, Kind.TEXT, learn=[index < ends for index in range(len(suffix))])

    def _add_item(
        self,
        document: _Document,
        item: Item,
        turn: Turn,
        number: int,
        sample: str,
        learn: bool,
        rng: torch.Generator | None,
    ) -> None:
        if item.modality not in self.rows:
            raise PlanError(
                f"sample {sample!r} has an item of unknown modality {item.modality!r}."
                f"{did_you_mean(item.modality, self.rows)}"
            )
        row = self.rows[item.modality]
        if item.is_output_of(turn) or isinstance(item.payload, Codes):
            self._add_codes(document, row, item, number, sample, learn)
        else:
            self._add_rows(document, row, item, number, sample, rng)

    def _add_codes(
        self, document: _Document, row: ModalityRow, item: Item, turn: int, sample: str, learn: bool
    ) -> None:
        if row.output is None:
            raise PlanError(
                f"sample {sample!r} asks for {row.name!r} as an output, but that modality has none. Give it an `out:`."
            )
        if not isinstance(item.payload, Codes):
            raise PlanError(
                f"sample {sample!r}: an output item of {row.name!r} must hold codes. Run its codec before planning."
            )
        block = row.output.block
        ids = [block.begin, *row.output.slots(item.payload), block.end]
        index, start = self.modalities.index(row.name), len(document.slots)
        planned = PlannedItem(
            row.name, "out", sample, 0, start, len(ids), len(ids), encoded=item.payload.shape, turn=turn
        )
        document.items.append(planned)
        document.add(ids, Kind.CODE, learn=learn, weight=item.weight, modality=index, item=len(document.items) - 1)
        document.slots[start].kind = document.slots[-1].kind = Kind.MARKER

    def _add_rows(
        self, document: _Document, row: ModalityRow, item: Item, turn: int, sample: str, rng: torch.Generator | None
    ) -> None:
        path = row.input
        if path is None:
            raise PlanError(
                f"sample {sample!r} gives {row.name!r} as an input, but that modality has none. Give it an `in:`."
            )
        raw = features = None
        if isinstance(item.payload, Packed):
            features, encoded = item.payload.x, item.payload.shapes[0]
        else:
            raw = item.payload if isinstance(item.payload, torch.Tensor) else path.processor(item.payload, rng)
            encoded = path.encoded(raw)
        shape = path.projected(encoded)
        keep = path.keep(shape.len, row.name)
        length = shape.len if keep is None else len(keep)
        index = self.modalities.index(row.name)
        document.add(self.text_ids(row.markers[0]), Kind.MARKER, modality=index)
        planned = PlannedItem(
            row.name, "in", sample, 0, len(document.slots), length, shape.len, encoded, raw, features, keep, turn
        )
        document.items.append(planned)
        first = len(document.slots)
        document.add([0] * length, Kind.MEDIA, modality=index, item=len(document.items) - 1)
        if shape.times is not None:
            kept = shape.times if keep is None else [shape.times[place] for place in keep]
            for slot, time in zip(document.slots[first:], kept, strict=True):
                slot.time_s = (item.t0 or 0.0) + time
        document.add(self.text_ids(row.markers[1]), Kind.MARKER, modality=index)

    # -- fitting and finishing --------------------------------------------------------------------------------

    def _fit(self, document: _Document, candidates: range, sample: str) -> int:
        """Cut whole segments among the candidates (neither the opening nor what asks) until the document fits; returns
        how many."""
        if self.max_length is None or len(document.slots) <= self.max_length:
            return 0
        if self.overflow == "refuse":
            raise PlanError(
                f"sample {sample!r} fills {len(document.slots)} slots, the limit is {self.max_length}. "
                "Shorten it, raise the limit, or set `overflow: end` or `start`."
            )
        sizes = [0] * document.segments
        for slot in document.slots:
            sizes[slot.segment] += 1
        order = candidates if self.overflow == "start" else candidates[::-1]
        excess, cut = len(document.slots) - self.max_length, set[int]()
        for segment in order:
            if excess <= 0:
                break
            cut.add(segment)
            excess -= sizes[segment]
        left = [slot for slot in document.slots if slot.segment not in cut]
        if excess > 0 or len(cut) == len(candidates):
            raise PlanError(f"sample {sample!r} has no segment that fits {self.max_length} slots beside its opening.")
        had_labels = any(slot.learn for slot in document.slots)
        if had_labels and not any(slot.learn for slot in left):
            raise PlanError(
                f"cutting sample {sample!r} to {self.max_length} slots leaves nothing to learn. "
                "Shorten its media or text."
            )
        self._rebuild(document, left)
        return len(cut)

    def _rebuild(self, document: _Document, left: list[_Slot]) -> None:
        kept = sorted({slot.item for slot in left if slot.item >= 0})
        number = {old: new for new, old in enumerate(kept)}
        starts: dict[int, int] = {}
        for place, slot in enumerate(left):
            if slot.item >= 0:
                slot.item = number[slot.item]
                starts.setdefault(slot.item, place)
        document.items = [replace(document.items[old], start=starts[new]) for new, old in enumerate(kept)]
        document.slots = left

    def _finish(self, document: _Document, sample: str, truncated: int) -> Plan:
        slots = document.slots
        length = len(slots)
        label, weight = [IGNORE] * length, [0.0] * length
        for place in range(length - 1):
            if slots[place + 1].learn:
                label[place], weight[place] = slots[place + 1].id, slots[place + 1].weight

        def column(values: list[Any], dtype: torch.dtype = torch.long) -> torch.Tensor:
            return torch.tensor(values, dtype=dtype)[None]

        plan = Plan(
            ids=column([slot.id for slot in slots]),
            kind=column([int(slot.kind) for slot in slots]),
            modality=column([slot.modality for slot in slots]),
            item=column([slot.item for slot in slots]),
            source=column([-1] * length),
            document=column([0] * length),
            segment=column([slot.segment for slot in slots]),
            stream=column([0] * length),
            position=torch.arange(length)[None, None],
            time_s=column([slot.time_s for slot in slots], torch.float64),
            label=column(label),
            weight=column(weight, torch.float32),
            route=column([slot.modality + 1 if slot.kind in (Kind.MEDIA, Kind.CODE) else 0 for slot in slots]),
            items=tuple(document.items),
            modalities=self.modalities,
            samples=(sample,),
            truncated=truncated,
        )
        return Plan.join([[plan]])


def _merged(parts: Sequence[Text | Item]) -> list[Text | Item]:
    """Neighbouring texts of one kind as one span, so that a border in a file is none in the tokens."""
    merged: list[Text | Item] = []
    for part in parts:
        last = merged[-1] if merged else None
        if isinstance(part, Text) and isinstance(last, Text) and (part.learn, part.weight) == (last.learn, last.weight):
            merged[-1] = replace(last, text=last.text + part.text)
        else:
            merged.append(part)
    return merged
