"""Learned positions added to rows: which frame of a video or window of a sound they are, or where in the picture.

Source: frame positions in front of the video Q-Former of Video-LLaMA (arXiv:2306.02858), 32 frames and 8 windows of
sound, and of ChatBridge (arXiv:2305.16103).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from omniloom.errors import ConfigError, ShapeError
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.grids import require_grid
from omniloom.projectors.width import require_width
from omniloom.sequence import Packed, Shape

__all__ = ["Positions"]

_AXES = ("frame", "line", "cell")


class Positions(Projector):
    """(S, in_dim) rows plus one learned row an axis; shapes stay, `out_dim` is `in_dim`.

    Args:
        axes: "frame": the same for all rows of a frame; "line": of a line; "cell": of a place in a line. Rows without
            a grid are windows in time, each a frame of its own, and have no lines.
        max: positions an axis has; an item with more is refused, not repeated. Video-LLaMA: 32, sound 8.
    Raises:
        ConfigError: no axis, an unknown one, or no positions.
    """

    def __init__(self, in_dim: int, out_dim: int, *, axes: Sequence[str] = ("frame",), max: int = 32) -> None:
        super().__init__()
        if not axes or any(axis not in _AXES for axis in axes) or len(set(axes)) != len(axes) or max < 1:
            raise ConfigError(
                f"Positions got axes={list(axes)}, max={max}; expected some of {', '.join(_AXES)}, each once, and at "
                "least one position."
            )
        self.in_dim, self.out_dim, self.axes, self.max = in_dim, in_dim, axes, max
        self.tables = nn.ParameterDict({axis: torch.randn(max, in_dim) * 0.02 for axis in axes})

    def forward(self, packed: Packed, context: Context) -> Packed:
        """Each row where it stands.

        Raises:
            ShapeError: more positions than there are, or lines of rows without a grid.
        """
        require_width(self, packed)
        counts = [self._counts(shape) for shape in packed.shapes]
        x = packed.x.to(next(iter(self.tables.values())))
        for axis, table in self.tables.items():
            places = [self._places(axis, sizes).to(x.device) for sizes in counts]
            x = x + table[torch.cat(places)]
        return Packed(x, packed.shapes)

    def out_shape(self, shape: Shape) -> Shape:
        """As it was.

        Raises:
            ShapeError: as `forward`.
        """
        self._counts(shape)
        return shape

    def _counts(self, shape: Shape) -> tuple[int, int, int]:
        has_lines = any(axis != "frame" for axis in self.axes)
        grid = require_grid(self, shape) if has_lines or shape.grid is not None else (shape.len, 1, 1)
        for axis, count in zip(_AXES, grid, strict=True):
            if axis in self.axes and count > self.max:
                raise ShapeError(
                    f"Positions has {self.max} of the axis {axis!r}, and an item has {count}. Raise `max`, or give it "
                    "fewer frames or windows."
                )
        return grid

    @staticmethod
    def _places(axis: str, grid: tuple[int, int, int]) -> Tensor:
        """(t * y * x,) places along an axis, in reading order."""
        index = _AXES.index(axis)
        shape = [1, 1, 1]
        shape[index] = grid[index]
        return torch.arange(grid[index], device="cpu").view(shape).expand(grid).flatten()
