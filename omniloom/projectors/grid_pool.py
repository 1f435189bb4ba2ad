"""Smaller grids by pooling every frame in its two dimensions. No weights.

Source: average pooling of a grid to fewer cells, as compared in Honeybee (arXiv:2312.06742) and used in Baichuan-Omni
(arXiv:2410.08565); bilinear pooling of video frames by 2, LLaVA-OneVision (arXiv:2408.03326).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from omniloom.errors import ConfigError
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.grids import cells_at, require_grid, through_grids
from omniloom.sequence import Packed, Shape

__all__ = ["GridPool"]


class GridPool(Projector):
    """(t, y, x) grids to (t, y', x'); keeps the width, so `out_dim` is `in_dim`.

    Args:
        stride: y' is ceil(y / stride), x' likewise; "average" and "max" then cover stride x stride cells, fewer at the
            edge. None where `cells` is given.
        cells: y' and x' themselves, whatever the grid; "average" and "max" cover floor(i y / cells) up to
            ceil((i + 1) y / cells). None where `stride` is given.
        mode: "average", "max", or "bilinear": interpolated at the centres of the smaller grid's cells.
    Raises:
        ConfigError: not exactly one of stride and cells, one below one, or an unknown mode.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        stride: int | None = 2,
        cells: int | None = None,
        mode: Literal["average", "max", "bilinear"] = "average",
    ) -> None:
        super().__init__()
        if (stride is None) == (cells is None) or (stride or cells or 0) < 1:
            raise ConfigError(
                f"GridPool needs a stride or a number of cells of at least one, got stride={stride}, cells={cells}. "
                "Set the other one to null."
            )
        if mode not in ("average", "max", "bilinear"):
            raise ConfigError(f"unknown mode {mode!r} of GridPool; expected 'average', 'max' or 'bilinear'.")
        self.in_dim, self.out_dim = in_dim, in_dim
        self.stride, self.cells, self.mode = stride, cells, mode

    def forward(self, packed: Packed, context: Context) -> Packed:
        """(S, in_dim) to (S', in_dim).

        Raises:
            ShapeError: an item without a grid.
        """
        return through_grids(self, packed, self._pooled)

    def out_shape(self, shape: Shape) -> Shape:
        """The smaller grid, each row at the time of the first cell it covers; tiles stay tiles.

        Raises:
            ShapeError: no grid.
        """
        _, y, x = require_grid(self, shape)
        return cells_at(self, shape, self._firsts(y), self._firsts(x))

    def _firsts(self, count: int) -> Sequence[int]:
        """The first of the cells that each cell of the smaller grid covers, of so many side by side."""
        if self.stride is not None:
            return range(0, count, self.stride)
        assert self.cells is not None  # exactly one of the two is given
        return [index * count // self.cells for index in range(self.cells)]

    def _pooled(self, grid: Tensor) -> Tensor:
        frames = grid.flatten(0, 1).permute(0, 3, 1, 2)
        size = (len(self._firsts(grid.shape[2])), len(self._firsts(grid.shape[3])))
        if self.mode == "bilinear":
            small = F.interpolate(frames, size=size, mode="bilinear")
        elif self.stride is None:
            pool = F.adaptive_avg_pool2d if self.mode == "average" else F.adaptive_max_pool2d
            small = pool(frames, size)
        elif self.mode == "average":
            small = F.avg_pool2d(frames, self.stride, ceil_mode=True, count_include_pad=False)
        else:
            small = F.max_pool2d(frames, self.stride, ceil_mode=True)
        return small.permute(0, 2, 3, 1).unflatten(0, grid.shape[:2])
