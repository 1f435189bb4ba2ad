"""Rows that are a grid: the check that they are, items of one grid together, its squares, and a grid of fewer cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch.nn.functional as F
from torch import Tensor

from omniloom.errors import ShapeError
from omniloom.layers import in_stacks
from omniloom.projectors.base import Projector
from omniloom.projectors.width import require_width
from omniloom.sequence import Packed, Shape

__all__ = ["cells_at", "require_grid", "squares", "through_grids", "times_at"]


def require_grid(projector: Projector, shape: Shape) -> tuple[int, int, int]:
    """The (t, y, x) of an item.

    Raises:
        ShapeError: its rows are no grid.
    """
    if shape.grid is None:
        raise ShapeError(
            f"{type(projector).__name__} got an item of {shape.len} rows without a grid; expected (t, y, x) rows. "
            "Take an encoder that gives a grid (patches without class tokens), and no part before it that drops it."
        )
    return shape.grid


def through_grids(projector: Projector, packed: Packed, change: Callable[[Tensor], Tensor]) -> Packed:
    """Every item through `change`, (B, t, y, x, d) to (B, t', y', x', d'), with the shapes that out_shape() says.

    Raises:
        ShapeError: rows of another width, no items, or an item without a grid.
    """
    require_width(projector, packed)
    shapes = [projector.out_shape(shape) for shape in packed.shapes]
    grids = [require_grid(projector, shape) for shape in packed.shapes]
    items = [item.unflatten(0, grid) for item, grid in zip(packed.items(), grids, strict=True)]
    return Packed.of(in_stacks(items, lambda batch: change(batch).flatten(1, 3)), shapes)


def squares(grid: Tensor, size: int) -> Tensor:
    """(B, t, y, x, d) to (B, t, ceil(y / size), size, ceil(x / size), size, d); zeros fill cells beyond the edge."""
    grid = F.pad(grid, (0, 0, 0, -grid.shape[3] % size, 0, -grid.shape[2] % size))
    return grid.unflatten(3, (-1, size)).unflatten(2, (-1, size))


def cells_at(projector: Projector, shape: Shape, lines: Sequence[int], cells: Sequence[int]) -> Shape:
    """The grid of the cells at those indices of every frame, each with its time; tiles stay tiles.

    Raises:
        ShapeError: no grid.
    """
    t, _, _ = require_grid(projector, shape)
    grid = (t, len(lines), len(cells))
    return Shape(prod(grid), grid, times_at(shape, range(t), lines, cells), shape.mosaic)


def times_at(
    shape: Shape, frames: Sequence[int], lines: Sequence[int], cells: Sequence[int]
) -> tuple[float, ...] | None:
    """The times of the cells at those indices of the three axes, in reading order; None without a clock or a grid."""
    if shape.times is None or shape.grid is None:
        return None
    _, y, x = shape.grid
    return tuple(shape.times[(frame * y + line) * x + cell] for frame in frames for line in lines for cell in cells)
