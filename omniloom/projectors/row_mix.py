"""All rows of an item mixed into one with a learned weight for each place.

Source: MuMu-LLaMA (arXiv:2412.06660), convolutions of kernel 1 over the 197 rows of ViT and the 3,137 of ViViT, which
are a weighted sum with a bias.
"""

from __future__ import annotations

import torch
from torch import nn

from omniloom.errors import ConfigError, ShapeError
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.width import require_width
from omniloom.sequence import Packed, Shape

__all__ = ["RowMix"]


class RowMix(Projector):
    """(items * rows, in_dim) to (items, in_dim): sum_i w_i x_i + b; starts as the mean, `out_dim` is `in_dim`.

    Args:
        rows: of every item, class tokens included; an item of another number is refused.
    Raises:
        ConfigError: a number below one.
    """

    def __init__(self, in_dim: int, out_dim: int, *, rows: int) -> None:
        super().__init__()
        if rows < 1:
            raise ConfigError(f"RowMix needs items of at least one row, got rows={rows}.")
        self.in_dim, self.out_dim, self.rows = in_dim, in_dim, rows
        self.mix = nn.Parameter(torch.full((rows,), 1 / rows))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, packed: Packed, context: Context) -> Packed:
        """One row an item.

        Raises:
            ShapeError: an item of another number of rows.
        """
        require_width(self, packed)
        shapes = tuple(self.out_shape(shape) for shape in packed.shapes)
        return Packed(self.mix @ packed.x.to(self.mix).unflatten(0, (-1, self.rows)) + self.bias, shapes)

    def out_shape(self, shape: Shape) -> Shape:
        """One row, at the time of the first.

        Raises:
            ShapeError: as `forward`.
        """
        if shape.len != self.rows:
            raise ShapeError(
                f"RowMix has weights for {self.rows} rows and got an item of {shape.len}. Set rows to what the encoder "
                "gives, of media that are all of one size, or take `average`, which takes any number."
            )
        return Shape(1, times=None if shape.times is None else shape.times[:1])
