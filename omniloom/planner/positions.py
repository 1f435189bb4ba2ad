"""Where slots stand: one count of slots, or axes of time, height and width that follow the grids of media.

Source: M-RoPE, Qwen2-VL (arXiv:2409.12191), section 2.1; TMRoPE, Qwen2.5-Omni (arXiv:2503.20215), section 2.2.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from omniloom.errors import ConfigError
from omniloom.sequence import Shape

__all__ = ["MRoPE", "Place", "Positions", "Sequential", "TMRoPE"]


@dataclass
class Place:
    """What a slot tells about its position. `item`, `row`: the row of which item stands here, -1 where none does.
    `clip`: number of the interleaved group, -1 outside of one. `is_beside`: at the position of the slot before it."""

    item: int = -1
    row: int = -1
    clip: int = -1
    is_beside: bool = False


class Positions(ABC):
    """Slots of one document -> (axes, L) whole numbers from 0."""

    axes: int

    @abstractmethod
    def place(self, places: Sequence[Place], shapes: Sequence[Shape | None]) -> Tensor:
        """`shapes`: of each item, after its projectors."""


class Sequential(Positions):
    """Slots are counted."""

    axes = 1

    def place(self, places: Sequence[Place], shapes: Sequence[Shape | None]) -> Tensor:
        """0, 1, 2, ... on one axis."""
        return torch.arange(len(places))[None]


class MRoPE(Positions):
    """Three axes: text counts on all of them; an item's rows on a grid stand at its start plus (t, y, x).

    Items of one clip that have times share its clock, if there is a rate; others stand behind one another.

    Args:
        rate_hz: positions a second of an item's time axis, from the times of its rows; None: one a frame.
        advance: where the next slot stands: "last", behind the largest position of what stood last (the paper, and
            Qwen2.5-Omni), which is where an answer goes on as well; "grid", behind the larger side of the item's grid
            (transformers' Qwen-VL, whose answers go on behind the largest position all the same).
    Raises:
        ConfigError: a rate that is not above zero, or an unknown advance.
    """

    axes = 3

    def __init__(self, *, rate_hz: float | None = None, advance: Literal["grid", "last"] = "last") -> None:
        if rate_hz is not None and not rate_hz > 0:
            raise ConfigError(f"positions at rate_hz={rate_hz}; expected a rate above zero, or none.")
        if advance not in ("grid", "last"):
            raise ConfigError(f"unknown advance {advance!r} of positions; expected 'grid' or 'last'.")
        self.rate_hz, self.advance = rate_hz, advance

    def place(self, places: Sequence[Place], shapes: Sequence[Shape | None]) -> Tensor:
        """(3, L): time, height, width."""
        found: list[Tensor] = []
        following, clip, clip_start = 0, -1, 0
        for run in _runs(places):
            first = run[0]
            if first.clip >= 0 and first.clip != clip:
                clip, clip_start = first.clip, following
            if first.item < 0:
                start = following - 1 if first.is_beside else following
                found.append(torch.arange(start, start + len(run)).expand(3, -1))
                following = start + len(run)
                continue
            shape = shapes[first.item]
            assert shape is not None
            rows = torch.tensor([place.row for place in run])
            steps = self._steps(shape, rows)
            is_on_clock = first.clip >= 0 and self.rate_hz is not None and shape.times is not None
            start = clip_start if is_on_clock else following
            if not is_on_clock:
                steps = steps - torch.stack([steps[0, 0], steps.new_zeros(()), steps.new_zeros(())])[:, None]
            if shape.grid is None:
                steps = steps[:1].expand(3, -1)
            found.append(steps + start)
            if self.advance == "grid" and shape.grid is not None:
                following = max(following, start + max(shape.grid[1:]))
            else:
                following = int(found[-1].max()) + 1
        return torch.cat(found, 1)

    def _steps(self, shape: Shape, rows: Tensor) -> Tensor:
        """(3, n): steps of these rows along time, height and width from the item's start."""
        if shape.grid is None:
            time = self._ticks(shape, rows) if self.rate_hz is not None and shape.times is not None else rows
            return torch.stack([time, torch.zeros_like(rows), torch.zeros_like(rows)])
        _, height, width = shape.grid
        frame = rows // (height * width)
        is_timed = self.rate_hz is not None and shape.times is not None
        return torch.stack([self._ticks(shape, rows) if is_timed else frame, rows // width % height, rows % width])

    def _ticks(self, shape: Shape, rows: Tensor) -> Tensor:
        assert shape.times is not None and self.rate_hz is not None
        # A time that is a whole tick but for rounding is that tick.
        return torch.tensor([math.floor(shape.times[row] * self.rate_hz + 1e-4) for row in rows.tolist()])


class TMRoPE(MRoPE):
    """M-RoPE whose time axis is real time: 25 positions a second, sound and pictures of a clip on one clock."""

    def __init__(self, *, rate_hz: float = 25.0, advance: Literal["grid", "last"] = "last") -> None:
        super().__init__(rate_hz=rate_hz, advance=advance)


def _runs(places: Sequence[Place]) -> Iterator[list[Place]]:
    """Neighbours that are rows of one item, or text; a slot beside another begins a run of text."""
    run: list[Place] = []
    for place in places:
        if run and (place.item != run[-1].item or place.is_beside or place.clip != run[-1].clip):
            yield run
            run = []
        run.append(place)
    if run:
        yield run
