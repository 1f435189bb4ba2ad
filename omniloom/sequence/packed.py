"""Ragged rows: shapes of items, and packed tensors of several items.

Everything ragged is packed, not padded: the rows of all items behind one another, and a `Shape` per item.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from omniloom.errors import ShapeError

__all__ = ["Auxiliary", "Packed", "Projected", "Shape"]


@dataclass(frozen=True)
class Auxiliary:
    """A loss that a part adds to the model's own: a sum and a count, divided by nobody but the trainer.

    `weight` multiplies the mean. `is_coupled`: items of a batch meet in it (contrast, balance of experts), so it
    depends on how a batch is cut; other losses do not.
    """

    total: Tensor
    count: Tensor
    weight: float = 1.0
    is_coupled: bool = False

    def __add__(self, other: Auxiliary) -> Auxiliary:
        """Both sums over both counts; weight and kind are the first one's."""
        return replace(self, total=self.total + other.total, count=self.count + other.count)


@dataclass(frozen=True)
class Shape:
    """What a planner must know of an item: how many rows, and where and when they are.

    `len`: number of rows. `grid`: (t, y, x) with t * y * x == len, if the rows are a grid in that order.
    `times`: the start of each row in seconds from the item's own start, if the rows have a clock. `mosaic`: (rows,
    columns, height, width): the pictures of the grid behind the first are tiles, in that many rows and columns, of one
    larger picture; what is not padding of it has the proportions height x width.
    """

    len: int
    grid: tuple[int, int, int] | None = None
    times: tuple[float, ...] | None = None
    mosaic: tuple[int, int, int, int] | None = None

    def __post_init__(self) -> None:
        if self.len < 1:
            raise ShapeError(f"an item has {self.len} rows; expected at least one. Check the part's out_shape().")
        if self.grid is not None and self.grid[0] * self.grid[1] * self.grid[2] != self.len:
            raise ShapeError(f"a grid {self.grid} does not hold {self.len} rows.")
        if self.times is not None and len(self.times) != self.len:
            raise ShapeError(f"{len(self.times)} times for {self.len} rows; expected one per row.")
        if self.mosaic is not None and (self.grid is None or self.grid[0] != 1 + self.mosaic[0] * self.mosaic[1]):
            raise ShapeError(f"a mosaic {self.mosaic} needs a grid of its tiles and the whole; got {self.grid}.")


@dataclass
class Packed:
    """Rows of several items behind one another.

    `x`: (S, d) rows. `shapes`: one per item; their lengths sum to S. `pooled`: (items, d') one vector an item, if
    the encoder has one. `taps`: layer -> (S, d'') rows of inner layers, if asked for. `losses`: what the part that
    made these rows adds to the loss, by name.
    """

    x: Tensor
    shapes: tuple[Shape, ...]
    pooled: Tensor | None = None
    taps: Mapping[int, Tensor] = field(default_factory=dict)
    losses: Mapping[str, Auxiliary] = field(default_factory=dict)

    def __post_init__(self) -> None:
        total = sum(self.lengths)
        if self.x.dim() != 2 or self.x.shape[0] != total:
            raise ShapeError(
                f"packed rows are {tuple(self.x.shape)} but the shapes of {len(self.shapes)} items sum to {total} "
                "rows. The part's forward() and out_shape() disagree."
            )

    @property
    def lengths(self) -> list[int]:
        """Rows per item."""
        return [shape.len for shape in self.shapes]

    def __len__(self) -> int:
        return len(self.shapes)

    def items(self) -> Iterator[Tensor]:
        """The (len, d) rows of each item, as views."""
        return iter(self.x.split(self.lengths))

    def padded(self) -> tuple[Tensor, Tensor]:
        """(items, longest, d) rows, zero where an item has none, and the (items, longest) mask of real rows."""
        lengths = torch.tensor(self.lengths, device=self.x.device)
        longest = int(lengths.max())
        mask = torch.arange(longest, device=self.x.device) < lengths[:, None]
        if bool(mask.all()):
            return self.x.view(len(self), longest, -1), mask
        rows = self.x.new_zeros(len(self), longest, self.x.shape[1])
        return rows.masked_scatter(mask[..., None], self.x), mask

    def singles(self) -> list[Packed]:
        """Every item by itself, with its pooled vector and its rows of every tap, without losses."""
        taps = {layer: rows.split(self.lengths) for layer, rows in self.taps.items()}
        return [
            Packed(
                rows,
                (shape,),
                None if self.pooled is None else self.pooled[index : index + 1],
                {layer: split[index] for layer, split in taps.items()},
            )
            for index, (rows, shape) in enumerate(zip(self.items(), self.shapes, strict=True))
        ]

    @classmethod
    def cat(cls, parts: Sequence[Packed]) -> Packed:
        """Several packed tensors as one, in order; pooled vectors and taps that all of them have, no losses."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        layers = [layer for layer in parts[0].taps if all(layer in part.taps for part in parts)]
        return cls(
            torch.cat([part.x for part in parts]),
            tuple(shape for part in parts for shape in part.shapes),
            torch.cat(pooled) if len(pooled) == len(parts) else None,
            {layer: torch.cat([part.taps[layer] for part in parts]) for layer in layers},
        )

    @classmethod
    def of(cls, rows: Sequence[Tensor], shapes: Sequence[Shape] | None = None) -> Packed:
        """From one (len, d) tensor per item; without `shapes`, plain rows."""
        given = tuple(shapes) if shapes is not None else tuple(Shape(row.shape[0]) for row in rows)
        return cls(torch.cat(list(rows)), given)


class Projected(Packed):
    """Rows of one item that are at the language model's width already: its parts alone knew how many there would be.

    They were made before the item was planned, and keep their graph.
    """
