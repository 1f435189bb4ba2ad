"""What the planner must know of a modality: how its items become rows, and how they become codes.

Shapes are composed through the parts' `out_shape`, on integers, before any weight is touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from omniloom.errors import PlanError, ShapeError
from omniloom.sequence import Block, Codes, Raw, Shape

__all__ = ["FuserRow", "InputPath", "ModalityRow", "OutputPath", "Shaping", "keep_uniform"]


class Shaping(Protocol):
    """Anything that says what it does to a shape: encoders and projectors."""

    def out_shape(self, shape: Shape) -> Shape:
        """The shape after this part."""
        ...


@dataclass(frozen=True)
class InputPath:
    """An input: processor -> encoder -> chain of projectors -> at most `max_slots` slots.

    `over`: what happens to an item with more rows: "refuse", or "resample" to evenly spaced rows. `insert`: its rows
    fill slots ("input"), are read inside the layers ("inject"), or "both". `attention` of its slots to one another:
    "causal"; "full", in both directions inside a piece without text or another item's rows; "frames", inside a frame.
    `timestamps`: text put before the rows of each new time, formatted with the seconds; at most one in
    `timestamps_every_s`. `windows`: media that are longer than the processor takes become several items.
    """

    processor: Any
    encoder: Shaping
    chain: Sequence[Shaping]
    max_slots: int | None = None
    over: Literal["refuse", "resample"] = "refuse"
    insert: Literal["input", "inject", "both"] = "input"
    attention: Literal["causal", "full", "frames"] = "causal"
    timestamps: str | None = None
    timestamps_every_s: float = 0.0
    windows: bool = False

    @property
    def is_late(self) -> bool:
        """Whether only the parts' forward knows how many rows an item becomes."""
        return any(getattr(part, "is_late", False) for part in self.chain)

    def encoded(self, raw: Raw) -> Shape:
        """The shape of an item's rows after the encoder."""
        return self.encoder.out_shape(self.processor.shape(raw))

    def projected(self, encoded: Shape) -> Shape:
        """The shape of an item's rows after the projectors."""
        shape = encoded
        for part in self.chain:
            shape = part.out_shape(shape)
        return shape

    def told(self, shape: Shape | None) -> Iterator[tuple[Any, Shape | None]]:
        """Each projector with the shape behind it, for people; None from where it cannot be told: a late part, or an
        example that is too small for one."""
        known = shape
        for part in self.chain:
            if known is not None:
                try:
                    known = None if getattr(part, "is_late", False) else part.out_shape(known)
                except ShapeError:
                    known = None
            yield part, known

    def keep(self, rows: int, modality: str) -> tuple[int, ...] | None:
        """Which rows stay under the slot budget; None for all.

        Raises:
            PlanError: more rows than the budget, and the policy is to refuse.
        """
        if self.max_slots is None or rows <= self.max_slots:
            return None
        if self.over == "refuse":
            raise PlanError(
                f"an item of {modality!r} fills {rows} slots, its budget is {self.max_slots}. "
                "Raise `slots.max`, set `slots.over: resample`, or pass a shorter item."
            )
        return keep_uniform(rows, self.max_slots)


def keep_uniform(rows: int, count: int) -> tuple[int, ...]:
    """`count` evenly spaced row numbers out of `rows`, the first and the last among them (the middle one for 1)."""
    if count == 1:
        return ((rows - 1) // 2,)
    return tuple(torch.linspace(0, rows - 1, count, dtype=torch.float64).round().long().tolist())


@dataclass(frozen=True)
class OutputPath:
    """A learned output by codes: a codec, a layout of its codes into slots, a block of the vocabulary."""

    codec: Any
    layout: Any
    block: Block

    def slots(self, codes: Codes) -> list[int]:
        """The vocabulary ids of the codes, without begin and end.

        Raises:
            PlanError: the layout gives another number of slots than it declares, or an id outside the block.
        """
        local = self.layout.place(codes)
        if len(local) != self.layout.length(codes.shape):
            raise PlanError(
                f"the layout placed {len(local)} slots where it declares {self.layout.length(codes.shape)}."
            )
        if any(code < 0 or code >= self.block.size for code in local):
            raise PlanError(f"a code of {self.block.modality!r} lies outside its {self.block.size} ids.")
        return [self.block.first + code for code in local]


@dataclass(frozen=True)
class ModalityRow:
    """A modality as the planner sees it: a row of the table. `markers`: text around the slots of an input item.
    `split`: the modalities that an item of this one is taken apart into; it has no input of its own then."""

    name: str
    payload_kind: str
    markers: tuple[str, str] = ("", "")
    input: InputPath | None = None
    output: OutputPath | None = None
    split: tuple[str, ...] = ()


@dataclass(frozen=True)
class FuserRow:
    """A fuser as the planner sees it: it makes the k-th items of its `inputs` in one turn into one item.

    `when`: "all" of the inputs must be there, or "any". `insert`: its rows stand where the "first" or the "last" of
    them stood, or are read inside the layers ("inject"). `keep`: inputs that keep their own slots beside. `fuser` says
    what it does to their shapes, None for no rows of its own; `chain` follows it.
    """

    name: str
    inputs: tuple[str, ...]
    fuser: Any
    chain: Sequence[Shaping] = ()
    when: Literal["all", "any"] = "all"
    insert: Literal["first", "last", "inject"] = "first"
    keep: tuple[str, ...] = ()
    markers: tuple[str, str] = ("", "")

    @property
    def has_rows(self) -> bool:
        """Whether it gives rows, or only a loss."""
        try:
            return self.fuser.out_shape({name: Shape(1) for name in self.inputs}) is not None
        except ShapeError:  # it wants more of its parts than one row
            return True

    def fused(self, shapes: Mapping[str, Shape]) -> Shape | None:
        """The shape of the fused rows at the end of the chain; None if it has none of its own."""
        shape: Shape | None = self.fuser.out_shape(shapes)
        if shape is not None:
            for part in self.chain:
                shape = part.out_shape(shape)
        return shape
