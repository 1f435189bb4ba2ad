"""Learned rows that say where an item begins and ends, where a line of its grid ends, and where a frame does.

Source: start and end of each modality, OneLLM (arXiv:2312.03700) and Macaw-LLM (arXiv:2306.09093); begin, end, newline
and separator of pictures, Ola (arXiv:2502.04328), which separates after every frame of a video and between two views of
a picture.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from omniloom.errors import ConfigError
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.grids import require_grid
from omniloom.projectors.own import Own
from omniloom.projectors.width import require_width
from omniloom.sequence import Packed, Shape

__all__ = ["Boundaries"]


class Boundaries(Projector):
    """(S, in_dim) rows with learned rows of the same width among them; a link, so `out_dim` is `in_dim`.

    Put it last in a chain: the rows are then of the language model's width, and no part behind it sees a grid.

    Args:
        start: a row before each item.
        end: a row behind each item.
        newline: a row behind each line of a grid.
        separator: "between": a row between frames, or tiles, of a grid; "after": behind each of them; None: none.
        own_rows: each modality that shares the part has such rows of its own, at `own.NAME`.
    Raises:
        ConfigError: nothing is chosen, or an unknown separator.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        start: bool = True,
        end: bool = True,
        newline: bool = False,
        separator: Literal["between", "after"] | None = None,
        own_rows: bool = False,
    ) -> None:
        super().__init__()
        if separator not in (None, "between", "after"):
            raise ConfigError(f"unknown separator {separator!r} of Boundaries; expected 'between', 'after' or null.")
        self.names = [
            name
            for name, is_chosen in (("start", start), ("end", end), ("newline", newline), ("separator", separator))
            if is_chosen
        ]
        if not self.names:
            raise ConfigError("Boundaries got none to add; choose one of start, end, newline and separator.")
        self.in_dim, self.out_dim = in_dim, in_dim
        self.start, self.end, self.newline, self.separator = start, end, newline, separator
        self.own_rows = own_rows
        self.shared = None if own_rows else self._rows()
        self.own = Own()

    def serve(self, modality: str) -> None:
        """Rows of the modality's own, where the option asks for them."""
        if self.own_rows:
            self.own.claim(modality, self._rows)

    def forward(self, packed: Packed, context: Context) -> Packed:
        """The rows of each item and its boundaries, in order.

        Raises:
            ShapeError: a newline or separator for an item without a grid.
            ConfigError: the part has rows of each modality's own, and was not told of this one.
        """
        require_width(self, packed)
        orders = [self._order(shape) for shape in packed.shapes]
        learned = self.own.of(context.modality, self) if self.shared is None else self.shared
        table = torch.stack([learned[name] for name in self.names])  # type: ignore[index]
        index: list[int] = []
        first = 0
        for shape, order in zip(packed.shapes, orders, strict=True):
            # Learned rows stand behind all others, so they are found from the end.
            index.extend(row if row < 0 else first + row for row in order)
            first += shape.len
        rows = torch.cat([packed.x.to(table), table])[torch.tensor(index, device=table.device)]
        return Packed(rows, tuple(self.out_shape(shape) for shape in packed.shapes))

    def out_shape(self, shape: Shape) -> Shape:
        """More rows, without a grid; a learned row has the time of the row before it, the first that of the next.

        Raises:
            ShapeError: as `forward`.
        """
        order = self._order(shape)
        times = None
        if shape.times is not None:
            filled, last = [], shape.times[0]
            for row in order:
                last = last if row < 0 else shape.times[row]
                filled.append(last)
            times = tuple(filled)
        return Shape(len(order), times=times)

    def _rows(self) -> nn.ParameterDict:
        draw: dict[str, Tensor] = {name: torch.randn(self.in_dim) * self.in_dim**-0.5 for name in self.names}
        return nn.ParameterDict(draw)

    def _order(self, shape: Shape) -> list[int]:
        """Where each row of the result is in the item; a boundary is its place in `names`, from the end."""
        place = {name: index - len(self.names) for index, name in enumerate(self.names)}
        order: list[int] = [place["start"]] if self.start else []
        if self.newline or self.separator:
            frames, lines, cells = require_grid(self, shape)
            for line in range(frames * lines):
                order.extend(range(line * cells, (line + 1) * cells))
                if self.newline:
                    order.append(place["newline"])
                is_last_line, is_last = (line + 1) % lines == 0, line + 1 == frames * lines
                if is_last_line and (self.separator == "after" or (self.separator and not is_last)):
                    order.append(place["separator"])
        else:
            order.extend(range(shape.len))
        return [*order, place["end"]] if self.end else order
