"""Tiles of a picture put together again: first the whole picture, small, then the tiles as the one large grid they are.

Lines of the large grid that only cover padding are cut off, each line ends in a learned row, and a grid that is still
too large is interpolated down. Source: "spatial unpad" of LLaVA-NeXT, and its limit "anyres_max_9" in LLaVA-OneVision
(arXiv:2408.03326).
"""

from __future__ import annotations

from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniloom.errors import ConfigError
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.width import require_width
from omniloom.sequence import Packed, Shape

__all__ = ["Mosaic"]


class Mosaic(Projector):
    """Grids of a whole picture and its tiles (`Shape.mosaic`) to y * x rows of the whole, then the lines of the tiles.

    An item that is no mosaic keeps its rows, with one learned row behind them. A link, so `out_dim` is `in_dim`; put it
    last, behind what brings rows to the language model's width.

    Args:
        newline: the learned rows; False leaves them all out.
        max_tiles: a large grid of more than 1.21 times the cells of this many tiles is interpolated to theirs, in its
            own proportions. LLaVA-OneVision: 9. None: as large as it is, as in LLaVA-NeXT.
    Raises:
        ConfigError: fewer tiles than one.
    """

    def __init__(self, in_dim: int, out_dim: int, *, newline: bool = True, max_tiles: int | None = None) -> None:
        super().__init__()
        if max_tiles is not None and max_tiles < 1:
            raise ConfigError(f"Mosaic needs room for one tile at least, got max_tiles={max_tiles}.")
        self.in_dim, self.out_dim, self.newline, self.max_tiles = in_dim, in_dim, newline, max_tiles
        self.line_end = nn.Parameter(torch.randn(in_dim) * in_dim**-0.5) if newline else None

    def forward(self, packed: Packed, context: Context) -> Packed:
        """(S, in_dim) to (S', in_dim)."""
        require_width(self, packed)
        x = packed.x if self.line_end is None else packed.x.to(self.line_end)
        rows: list[Tensor] = []
        for item, shape in zip(x.split(packed.lengths), packed.shapes, strict=True):
            rows.append(self._ended(item[None]) if shape.mosaic is None else self._arranged(item, shape))
        return Packed.of(rows, [self.out_shape(shape) for shape in packed.shapes])

    def out_shape(self, shape: Shape) -> Shape:
        """Rows without a grid, but for an item that stays as it was. A mosaic has the time of its first row."""
        end = int(self.newline)
        if shape.mosaic is None:
            times = None if shape.times is None else (*shape.times, *shape.times[-1:] * end)
            return Shape(shape.len + end, times=times) if end else shape
        assert shape.grid is not None  # a mosaic has one
        _, _, lines, cells = self._plan(shape)
        count = shape.grid[1] * shape.grid[2] + lines * (cells + end)
        return Shape(count, times=None if shape.times is None else shape.times[:1] * count)

    def _plan(self, shape: Shape) -> tuple[slice, slice, int, int]:
        """What of the large grid covers the picture, and how many lines of how many cells it ends as."""
        assert shape.grid is not None and shape.mosaic is not None
        _, y, x = shape.grid
        rows, columns, height, width = shape.mosaic
        lines, cells = rows * y, columns * x
        if width / height > cells / lines:
            cut = (lines - int(round(height * (cells / width), 7))) // 2
            keep = slice(cut, lines - cut), slice(0, cells)
        else:
            cut = (cells - int(round(width * (lines / height), 7))) // 2
            keep = slice(0, lines), slice(cut, cells - cut)
        lines, cells = (part.stop - part.start for part in keep)
        ratio = 0.0 if self.max_tiles is None else sqrt(lines * cells / (self.max_tiles * y * x))
        # Under a tenth in length, interpolation would blur more than it saves.
        if ratio > 1.1:
            lines, cells = max(1, int(lines // ratio)), max(1, int(cells // ratio))
        return *keep, lines, cells

    def _arranged(self, item: Tensor, shape: Shape) -> Tensor:
        assert shape.grid is not None and shape.mosaic is not None
        across, along, lines, cells = self._plan(shape)
        whole, *tiles = item.unflatten(0, shape.grid)
        large = torch.stack(tiles).unflatten(0, shape.mosaic[:2]).transpose(1, 2).flatten(2, 3).flatten(0, 1)
        large = large[across, along]
        if large.shape[:2] != (lines, cells):
            picture = large.permute(2, 0, 1)[None]
            large = F.interpolate(picture, size=(lines, cells), mode="bilinear")[0].permute(1, 2, 0)
        return torch.cat([whole.flatten(0, 1), self._ended(large)])

    def _ended(self, lines: Tensor) -> Tensor:
        """(lines, cells, d) to rows, with the learned row behind each line."""
        if self.line_end is not None:
            lines = torch.cat([lines, self.line_end.expand(lines.shape[0], 1, -1)], 1)
        return lines.flatten(0, 1)
