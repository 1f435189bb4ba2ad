"""Locality-preserving projection of pictures to a fixed number of rows: convolve, pool to a small grid, convolve.

Source: the C-Abstractor of Honeybee (arXiv:2312.06742); with two blocks a stage and 16 x 16 cells in
EMOVA (arXiv:2409.18042).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from omniloom.errors import ConfigError
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.grids import cells_at, require_grid, through_grids
from omniloom.projectors.regstage import RegStage, readout
from omniloom.sequence import Packed, Shape

__all__ = ["CAbstractor"]


class CAbstractor(Projector):
    """(t, y, x) grids to (t, cells, cells) of width out_dim, frame by frame.

    Args:
        cells: rows a side that a frame becomes. Honeybee: 12, EMOVA: 16.
        depth: bottlenecks before pooling, and again after it; 0: none, then `width` is not used. Honeybee: 3, EMOVA: 2.
        width: of the bottlenecks. Honeybee: 1024.
        layers: linear maps at the end, with SiLU between them.
    Raises:
        ConfigError: a count below one, or a negative depth.
    """

    def __init__(
        self, in_dim: int, out_dim: int, *, cells: int = 4, depth: int = 2, width: int = 256, layers: int = 2
    ) -> None:
        super().__init__()
        if min(cells, width, layers) < 1 or depth < 0:
            raise ConfigError(
                "CAbstractor needs cells, width and layers of at least one and a depth of at least zero, "
                f"got {cells}, {width}, {layers} and {depth}."
            )
        self.in_dim, self.out_dim = in_dim, out_dim
        self.cells, self.depth, self.width, self.layers = cells, depth, width, layers
        inner = width if depth else in_dim
        self.before = RegStage(depth, in_dim, inner)
        self.after = RegStage(depth, inner, inner)
        self.readout = readout(layers, inner, out_dim, nn.SiLU)

    def forward(self, packed: Packed, context: Context) -> Packed:
        """(S, in_dim) to (frames * cells * cells, out_dim).

        Raises:
            ShapeError: an item without a grid.
        """
        return through_grids(self, packed, self._abstracted)

    def out_shape(self, shape: Shape) -> Shape:
        """cells x cells rows a frame, each at the time of the first cell it pools; tiles stay tiles.

        Raises:
            ShapeError: no grid.
        """
        _, y, x = require_grid(self, shape)
        lines, cells = ([index * n // self.cells for index in range(self.cells)] for n in (y, x))
        return cells_at(self, shape, lines, cells)

    def _abstracted(self, grid: Tensor) -> Tensor:
        x = grid.to(next(self.readout.parameters())).flatten(0, 1).permute(0, 3, 1, 2)
        x = self.after(F.adaptive_avg_pool2d(self.before(x), self.cells))
        return self.readout(x.permute(0, 2, 3, 1)).unflatten(0, grid.shape[:2])
