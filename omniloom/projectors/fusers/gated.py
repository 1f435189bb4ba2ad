"""Modalities that support a main one: mapped together and gated by themselves, then added to its rows or put behind.

    z = W [x_2; x_3; ...] + b        fused = x_1 + z * sigmoid(z)

Source: the self-gated fusion of CREMA (arXiv:2402.05889): depth, normals, flow, sound or points into the
query tokens of the frames, so that the number of tokens stays that of the video alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniloom.errors import ConfigError, ShapeError
from omniloom.projectors.base import Context
from omniloom.projectors.fusers.inputs import first_of, require_groups, require_inputs
from omniloom.projectors.fusing import Fuser, Group
from omniloom.sequence import Packed, Shape

__all__ = ["Gated"]


class Gated(Fuser):
    """Rows of the first input, with those of the others gated into them; their width stays.

    An input with fewer rows is repeated where the first one's number is a multiple of its: one set of queries for the
    sets of all frames. One that is not there counts as zeros; where none is, the first is what it was.

    Args:
        mode: "add" keeps the first one's rows, "append" puts as many gated rows behind them.
    Raises:
        ConfigError: fewer than two inputs, or an unknown mode.
    """

    def __init__(self, in_dims: Mapping[str, int], out_dim: int, *, mode: Literal["add", "append"] = "add") -> None:
        super().__init__()
        require_inputs(self, in_dims, 2)
        if mode not in ("add", "append"):
            raise ConfigError(f"unknown mode {mode!r} of Gated; expected 'add' or 'append'.")
        first, *others = in_dims
        self.in_dims, self.out_dim, self.mode = in_dims, in_dims[first], mode
        self.map = nn.Linear(sum(in_dims[name] for name in others), self.out_dim)

    def forward(self, groups: Sequence[Group], context: Context) -> Packed:
        """Fused rows of every group, in order.

        Raises:
            ShapeError: a group without the first input, or an input whose rows cannot be repeated to its number.
        """
        require_groups(self, groups)
        shapes = [self.out_shape({name: packed.shapes[0] for name, packed in group.items()}) for group in groups]
        return Packed.of([self._fused(group) for group in groups], shapes)

    def out_shape(self, shapes: Mapping[str, Shape]) -> Shape:
        """The first input's shape; with "append" twice its rows, without grid and times.

        Raises:
            ShapeError: as `forward`.
        """
        main = first_of(self, shapes)
        for name, shape in shapes.items():
            if shapes[main].len % shape.len:
                raise ShapeError(
                    f"Gated cannot repeat the {shape.len} rows of {name!r} to the {shapes[main].len} of {main!r}. "
                    "End the projectors of both with as many rows, or with a multiple."
                )
        if self.mode == "append" and len(shapes) > 1:
            return Shape(2 * shapes[main].len)
        return shapes[main]

    def _fused(self, group: Group) -> Tensor:
        rows = group[first_of(self, group)].x.to(self.map.weight)
        if len(group) == 1:
            return rows
        beside = [
            group[name].x.to(rows).repeat(len(rows) // len(group[name].x), 1)
            if name in group
            else rows.new_zeros(len(rows), self.in_dims[name])
            for name in list(self.in_dims)[1:]
        ]
        gated = F.silu(self.map(torch.cat(beside, -1)))
        return rows + gated if self.mode == "add" else torch.cat([rows, gated])
