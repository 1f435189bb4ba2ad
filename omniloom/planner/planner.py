"""From a sample to its Plan: every slot decided on the CPU, with exact counts.

Text is tokenised span by span between the template's special tokens; an item becomes a run of slots as long as its
composed shape says; an output item becomes begin, codes and end of its block. Only what the assistant says is
learned, and the token that ends its turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch

from omniloom.errors import PlanError, did_you_mean
from omniloom.planner.document import Document
from omniloom.planner.interleave import Chunks, Interleaving, Strand, Stretch
from omniloom.planner.items import Fusion, Ready, clip_end, fusions, merged, numbered, read_item, timed
from omniloom.planner.paths import FuserRow, ModalityRow
from omniloom.planner.positions import Place, Positions, Sequential
from omniloom.planner.spelling import Edge, Spelling
from omniloom.planner.template import Template
from omniloom.sequence import IGNORE, Codes, Item, Kind, Plan, PlannedItem, Sample, Text, Turn, Vocabulary

__all__ = ["Overflow", "Planner"]

Overflow = Literal["refuse", "end", "start"]


class Planner:
    """Makes plans for one model: its tokenizer, template, table of modalities and vocabulary.

    `max_length`: slots a document may fill; `overflow`: what happens to a longer one: "refuse" it, or cut whole
    segments at its "end" or its "start" (after the opening), and count them. `positions`: where slots stand;
    `interleaving`: the order of rows of one clip's items. `decoder_start`: of an encoder-decoder, the ids that begin
    what its decoder says; everything but the last answer is read by its encoder. None: one stream of slots.
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
        positions: Positions | None = None,
        interleaving: Interleaving | None = None,
        fusers: Sequence[FuserRow] = (),
        decoder_start: Sequence[int] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.rows = rows
        self.vocabulary = vocabulary
        self.max_length = max_length
        self.overflow = overflow
        self.positions = positions or Sequential()
        self.interleaving = interleaving or Chunks()
        self.fusers = tuple(fusers)
        self.decoder_start = decoder_start
        self.modalities = (*rows, *(fuser.name for fuser in self.fusers))
        self.spelling = Spelling(tokenizer)

    def plan(
        self, sample: Sample, *, ask: bool = False, opening: bool = True, rng: torch.Generator | None = None
    ) -> Plan:
        """The plan of one sample, one row.

        `ask`: end with the assistant's prefix, for generation. `opening` False plans turns that continue an earlier
        plan: no opening text before them. `rng`: for processors that augment; None for none.

        Raises:
            PlanError: an unknown modality, an item its modality cannot take, or a document that does not fit.
        """
        document = Document()
        if opening:
            starts_with_system = bool(sample.turns) and sample.turns[0].role == "system"
            self._open(document, starts_with_system)
        elif sample.turns and self.spelling.has_care:
            document.edge = self.template.edge_before(sample.turns[0].role, self.spelling)
        opened = document.segments
        if self.decoder_start is not None:
            document.stream = 1
            for slot in document.slots:
                slot.stream = 1
        for number, turn in enumerate(sample.turns):
            is_last = number == len(sample.turns) - 1 and not ask
            self._add_turn(document, turn, number, sample.id, rng, is_last=is_last)
        asked = document.segments
        if ask:
            self._add_prefix(document, "assistant")
            self._begin_answer(document)
        if not document.slots:
            raise PlanError(f"sample {sample.id!r} has no turns, so there is nothing to plan.")
        if not opening and document.slots[0].learn:
            raise PlanError(
                f"sample {sample.id!r} continues a plan with a learned token, whose label would stand in the plan "
                "before it. Plan that answer together with the turn it answers."
            )
        candidates = [segment for segment in range(opened, asked) if segment not in document.fixed]
        if document.fixed and self.overflow == "start":  # an answer is never said from its middle on
            candidates = [segment for segment in candidates if segment < document.fixed.start]
        truncated = self._fit(document, candidates, sample.id)
        return replace(self._finish(document, sample.id, truncated), turns=len(sample.turns)).check()

    def items(self, sample: Sample, rng: torch.Generator | None = None) -> list[PlannedItem]:
        """The input items of a sample, read and shaped as in its plan, but in no slots."""
        turns = [self._read(turn, number, sample.id, rng) for number, turn in enumerate(sample.turns)]
        for parts in turns:
            fusions(parts, self.fusers)
        return [replace(part.planned, role=part.role) for parts in turns for part in parts if isinstance(part, Ready)]

    def batch(self, plans: Sequence[Plan], *, pack: int = 0) -> Plan:
        """Plans of single samples as one batch: padded, or packed into rows of `pack` slots."""
        return Plan.pack(plans, pack) if pack else Plan.stack(plans)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the language model's own ids."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def text_ids(self, text: str) -> tuple[int, ...]:
        """The ids of a text by itself; special tokens written in it are text."""
        return self.spelling.words(text)

    # -- turns ------------------------------------------------------------------------------------------------

    def _open(self, document: Document, starts_with_system: bool) -> None:
        """What stands before the first turn."""
        if not self.spelling.has_care:
            document.add(self.template.bos if starts_with_system else self.template.head, Kind.TEXT)
            return
        document.add(self.template.bos, Kind.TEXT)
        document.edge.is_start = not self.template.scaffold.bos
        if not starts_with_system:
            document.add(self.template.opening(self.spelling, document.edge), Kind.TEXT, is_joined=bool(document.slots))

    def _add_prefix(self, document: Document, role: str) -> None:
        if role not in self.template.prefix:
            raise PlanError(f"the chat template has no {role} turn. Leave that turn out, or set `template: plain`.")
        ids = self.template.prefix[role]
        if self.spelling.has_care:
            ids = self.spelling.written(self.template.scaffold.around[role][0], document.edge)
            # What asks for an answer is the same whether one follows or is to be said.
            ids += self.spelling.settled(document.edge) if role == "assistant" else ()
        document.add(ids, Kind.TEXT)

    def _add_suffix(self, document: Document, role: str, *, is_said: bool, learn: bool) -> None:
        template = self.template
        ids = template.said_suffix if is_said else template.suffix[role]
        learned = template.learned_suffix if learn else 0
        if self.spelling.has_care and not (is_said and self.decoder_start is not None):
            ids = template.end if role == "assistant" else ()
            if ids:
                document.edge.cut()
            ids += self.spelling.written(template.scaffold.around[role][1], document.edge)
            learned = next((place + 1 for place, token in enumerate(ids) if token in template.stop), 0) if learn else 0
        document.add(ids, Kind.TEXT, learn=[index < learned for index in range(len(ids))])

    def _add_border(self, document: Document) -> None:
        """Rows or codes follow: spaces that wait stand before them, and text behind them begins anew."""
        document.add(self.spelling.settled(document.edge), Kind.TEXT)
        document.edge.cut()

    def _begin_answer(self, document: Document) -> None:
        """From here on the decoder of an encoder-decoder speaks."""
        if self.decoder_start is not None:
            first = document.segments
            document.add(self.template.ending, Kind.TEXT)
            document.stream = 0
            document.add(self.decoder_start, Kind.TEXT)
            document.edge = Edge()
            document.fixed = range(first, document.segments)

    def _add_turn(
        self,
        document: Document,
        turn: Turn,
        number: int,
        sample: str,
        rng: torch.Generator | None,
        *,
        is_last: bool = True,
    ) -> None:
        learn = turn.role == "assistant" if turn.learn is None else turn.learn
        is_answer = turn.role == "assistant" and (self.decoder_start is None or is_last)
        can_learn = is_answer or self.decoder_start is None  # an encoder predicts nothing
        learn = learn and can_learn
        self._add_prefix(document, turn.role)
        if is_answer:
            self._begin_answer(document)
        parts = self._read(turn, number, sample, rng)
        found = fusions(parts, self.fusers)
        numbers: dict[int, int] = {}
        lead = self.template.lead.get(turn.role, "")
        is_anew = self.template.is_bare and turn.role == "user"
        at = 0
        while at < len(parts):
            stop = at + 1
            part = parts[at]
            if isinstance(part, Text):
                flag = learn if part.learn is None else part.learn and can_learn
                if is_anew:
                    document.add(self.template.begin, Kind.TEXT)
                    document.edge, is_anew = Edge(), False
                ids = self.spelling.spoken(lead + part.text, document.edge, keeps_spaces=turn.role == "assistant")
                document.add(ids, Kind.TEXT, learn=flag, weight=part.weight)
                lead = ""
            elif isinstance(part, Item):
                self._add_codes(document, self.rows[part.modality], part, number, sample, learn)
            else:
                stop = clip_end(parts, at)
                numbers |= self._add_clip(document, parts[at:stop], at)
            for fusion in found:
                if at <= fusion.anchor < stop:
                    self._add_fused(document, fusion, number, sample, turn.text)
            at = stop
        for fusion in found:
            index = fusion.index
            sources = tuple(numbers[place] for place in fusion.places)
            document.items[index] = replace(document.items[index], parts=sources)
        self._add_suffix(document, turn.role, is_said=is_answer, learn=turn.role == "assistant" and learn)

    def _read(self, turn: Turn, number: int, sample: str, rng: torch.Generator | None) -> list[Any]:
        """The parts of a turn: text, items of codes, and input items that are read and shaped."""
        parts: list[Any] = []
        for part in merged(turn.parts):
            if isinstance(part, Text):
                parts.append(part)
                continue
            if part.modality not in self.rows:
                raise PlanError(
                    f"sample {sample!r} has an item of unknown modality {part.modality!r}."
                    f"{did_you_mean(part.modality, self.rows)}"
                )
            if part.is_output_of(turn) or isinstance(part.payload, Codes):
                parts.append(part)
            else:
                parts.append(read_item(part, self.rows[part.modality], sample, number, turn.text, rng))
        return parts

    def _add_codes(self, document: Document, row: ModalityRow, item: Item, turn: int, sample: str, learn: bool) -> None:
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
        self._add_border(document)
        index, start = self.modalities.index(row.name), len(document.slots)
        planned = PlannedItem(
            row.name, "out", sample, 0, start, len(ids), len(ids), encoded=item.payload.shape, turn=turn
        )
        held = document.hold(planned, "out")
        document.add(ids, Kind.CODE, learn=learn, weight=item.weight, modality=index, item=held)
        document.slots[start].kind = document.slots[-1].kind = Kind.MARKER

    def _add_clip(self, document: Document, clip: Sequence[Ready], at: int) -> dict[int, int]:
        """Neighbouring items of one clip, interleaved by time; most clips are one item. Returns their numbers by place.

        Their markers stand around the whole: all beginnings, then the rows, then all ends in reverse.
        """
        seen = [ready for ready in clip if ready.role == "in"]
        number = document.clips if len(seen) > 1 else -1
        document.clips += len(seen) > 1
        indices = {id(ready): self.modalities.index(ready.row.name) for ready in clip}
        begins = [numbered(r.row.markers[0], r.row.name, document.items, seen[:order]) for order, r in enumerate(seen)]
        self._add_markers(document, seen, begins)
        if seen:
            self._add_border(document)
        numbers = {}
        for place, ready in enumerate(clip):
            numbers[at + place] = document.hold(ready.planned, ready.role)
        held = {id(ready): numbers[at + place] for place, ready in enumerate(clip)}
        if len(seen) > 1:
            stretches = self.interleaving.order([Strand(len(ready.rows), ready.times_s) for ready in seen])
        else:
            stretches = [Stretch(index, 0, len(ready.rows)) for index, ready in enumerate(seen)]
        first = len(document.slots)
        is_joined = False
        for stretch in stretches:
            ready = seen[stretch.strand]
            for piece in timed(ready, stretch):
                if piece.text:
                    ids = self.spelling.written(piece.text, document.edge)
                    ids += self.spelling.settled(document.edge)
                    document.edge.cut()
                    document.add(ids, Kind.MARKER, modality=indices[id(ready)], is_joined=is_joined)
                    is_joined = is_joined or bool(ids)
                document.add_rows(ready, piece, indices[id(ready)], held[id(ready)], number, is_joined=is_joined)
                is_joined = True
        for ready in seen:
            mine = held[id(ready)]
            start = next(slot for slot in range(first, len(document.slots)) if document.slots[slot].item == mine)
            document.items[mine] = replace(document.items[mine], start=start)
        self._add_markers(document, seen[::-1], [ready.row.markers[1] for ready in seen[::-1]])
        return numbers

    def _add_markers(self, document: Document, clip: Sequence[Ready], texts: Sequence[str]) -> None:
        """The markers of several items on one side of their clip: one segment; each begins where the last one ended."""
        is_joined = False
        for ready, text in zip(clip, texts, strict=True):
            ids, first = self.spelling.written(text, document.edge), len(document.slots)
            document.add(ids, Kind.MARKER, modality=self.modalities.index(ready.row.name), is_joined=is_joined)
            if ids:
                document.slots[first].is_beside = is_joined
                is_joined = True

    def _add_fused(self, document: Document, fusion: Fusion, turn: int, sample: str, instruction: str) -> None:
        """The rows of a fuser, where the first or the last of its parts stood; or no slots, if it only adds a loss or
        its rows are read inside the layers."""
        name, shape, rows = fusion.fuser.name, fusion.shape, fusion.rows
        length = 0 if fusion.is_side else rows
        index = self.modalities.index(name)
        planned = PlannedItem(
            name, "in", sample, 0, 0, length, rows, shape, turn=turn, shape=shape, instruction=instruction
        )
        before, behind = fusion.fuser.markers if length else ("", "")
        document.add(self.spelling.written(before, document.edge), Kind.MARKER, modality=index)
        if length:
            self._add_border(document)
        fusion.index = document.hold(planned, "side" if fusion.is_side else "in")
        document.add([0] * length, Kind.MEDIA, modality=index, item=fusion.index)
        for row, slot in enumerate(document.slots[len(document.slots) - length :]):
            slot.row = row
            if shape is not None and shape.times is not None:
                slot.time_s = shape.times[row]
        document.add(self.spelling.written(behind, document.edge), Kind.MARKER, modality=index)

    # -- fitting and finishing --------------------------------------------------------------------------------

    def _fit(self, document: Document, candidates: Sequence[int], sample: str) -> int:
        """Cut whole segments among the candidates (neither the opening nor what asks) until the document fits; returns
        how many."""
        if self.max_length is None or len(document.slots) <= self.max_length:
            return 0
        if self.overflow == "refuse":
            raise PlanError(
                f"sample {sample!r} fills {len(document.slots)} slots, the limit is {self.max_length}. "
                "Shorten it, raise the limit, or set `overflow: end` or `start`."
            )
        order = candidates if self.overflow == "start" else candidates[::-1]
        left, excess = document.cut(order, len(document.slots) - self.max_length)
        cut = len({slot.segment for slot in document.slots}) - len({slot.segment for slot in left})
        if excess > 0 or cut == len(candidates):
            raise PlanError(f"sample {sample!r} has no segment that fits {self.max_length} slots beside its opening.")
        had_labels = any(slot.learn for slot in document.slots)
        if had_labels and not any(slot.learn for slot in left):
            raise PlanError(
                f"cutting sample {sample!r} to {self.max_length} slots leaves nothing to learn. "
                "Shorten its media or text."
            )
        document.leave(left)
        return cut

    def _finish(self, document: Document, sample: str, truncated: int) -> Plan:
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
            stream=column([slot.stream for slot in slots]),
            span=column([slot.span for slot in slots]),
            position=self._positions(document)[:, None],
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

    def _positions(self, document: Document) -> torch.Tensor:
        """(axes, L); times of a clip's items are on the clip's clock."""
        places = [
            Place(slot.item if slot.row >= 0 else -1, slot.row, slot.clip, slot.is_beside) for slot in document.slots
        ]
        return self.positions.place(places, [item.shape for item in document.items])
