"""What the planner must know of a modality: how its items become rows, and how they become codes.

Shapes are composed through the parts' `out_shape`, on integers, before any weight is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from omniloom.errors import PlanError
from omniloom.sequence import Block, Codes, Shape

__all__ = ["InputPath", "ModalityRow", "OutputPath", "Shaping", "keep_uniform"]


class Shaping(Protocol):
    """Anything that says what it does to a shape: encoders and projectors."""

    def out_shape(self, shape: Shape) -> Shape:
        """The shape after this part."""
        ...


@dataclass(frozen=True)
class InputPath:
    """An input: processor -> encoder -> chain of projectors -> at most `max_slots` slots.

    `over`: what happens to an item with more rows: "refuse", or "resample" to evenly spaced rows.
    """

    processor: Any
    encoder: Shaping
    chain: Sequence[Shaping]
    max_slots: int | None = None
    over: Literal["refuse", "resample"] = "refuse"

    def encoded(self, raw: Tensor) -> Shape:
        """The shape of an item's rows after the encoder."""
        return self.encoder.out_shape(self.processor.shape(raw))

    def projected(self, encoded: Shape) -> Shape:
        """The shape of an item's rows after the projectors."""
        shape = encoded
        for part in self.chain:
            shape = part.out_shape(shape)
        return shape

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
    """A modality as the planner sees it: a row of the table. `markers`: text around the slots of an input item."""

    name: str
    payload_kind: str
    markers: tuple[str, str] = ("", "")
    input: InputPath | None = None
    output: OutputPath | None = None
