"""Four cells of a grid become one, each channel weighted by learned scores that see the cell and the mean of the four.

Source: local-global attention pooling of Ola (arXiv:2502.04328).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from omniloom.errors import ConfigError
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.grids import cells_at, require_grid, squares, through_grids
from omniloom.sequence import Packed, Shape

__all__ = ["ScorePool"]


class ScorePool(Projector):
    """(t, y, x) grids to (t, ceil(y / size), ceil(x / size)) by a softmax over each size x size cells.

    Scores are an MLP of [cell; mean of the cells], one a channel; cells beyond the edge do not exist.

    Args:
        size: cells a side; Ola: 2.
        mlp: a linear map before pooling, GELU and a linear map after it, to the language model's width, as in Ola.
            False pools alone and keeps the width, so `out_dim` is `in_dim`.
    Raises:
        ConfigError: a size below one.
    """

    def __init__(self, in_dim: int, out_dim: int, *, size: int = 2, mlp: bool = True) -> None:
        super().__init__()
        if size < 1:
            raise ConfigError(f"ScorePool needs a size of at least one, got size={size}.")
        width = out_dim if mlp else in_dim
        self.in_dim, self.out_dim, self.size, self.mlp = in_dim, width, size, mlp
        self.first = nn.Linear(in_dim, width) if mlp else nn.Identity()
        # No bias at the end: the same for all cells, it would cancel in the softmax.
        self.score = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, width, bias=False))
        self.last = nn.Sequential(nn.GELU(), nn.Linear(width, width)) if mlp else nn.Identity()

    def forward(self, packed: Packed, context: Context) -> Packed:
        """(S, in_dim) to (S', out_dim).

        Raises:
            ShapeError: an item without a grid.
        """
        return through_grids(self, packed, self._pooled)

    def out_shape(self, shape: Shape) -> Shape:
        """The smaller grid, each row at the time of its first cell; tiles stay tiles.

        Raises:
            ShapeError: no grid.
        """
        _, y, x = require_grid(self, shape)
        return cells_at(self, shape, range(0, y, self.size), range(0, x, self.size))

    def _pooled(self, grid: Tensor) -> Tensor:
        x = self._squares(self.first(grid.to(next(self.score.parameters()))))  # (B, t, y', x', size * size, d)
        is_real = self._squares(grid.new_ones(1, 1, *grid.shape[2:4], 1)) > 0
        mean = x.sum(-2, keepdim=True) / is_real.sum(-2, keepdim=True)
        scores = self.score(torch.cat([x, mean.expand_as(x)], -1))
        weights = scores.masked_fill(~is_real, -torch.inf).softmax(-2)
        return self.last((x * weights).sum(-2))

    def _squares(self, grid: Tensor) -> Tensor:
        return squares(grid, self.size).transpose(3, 4).flatten(4, 5)
