"""Modalities side by side in time: the rows of all inputs at one moment become one wider row.

Source: the frame-synchronous fusion of FAVOR (arXiv:2310.05863), of pictures and sound; three streams,
with speech apart, in video-SALMONN (arXiv:2406.15704). Unpaired data have zeros in the place of what is not there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from math import inf

import torch
from torch import Tensor

from omniloom.projectors.base import Context
from omniloom.projectors.fusers.inputs import require_groups, require_inputs
from omniloom.projectors.fusing import Fuser, Group
from omniloom.sequence import Packed, Shape

__all__ = ["Channels"]


class Channels(Fuser):
    """Rows of the first input, each with those of the others at its time beside it: `out_dim` is the sum of widths.

    The first input that is there gives the moments, one for each time its rows have. Of another input a moment takes
    the mean of the rows that begin in it, up to the next one; where none does, the row before lasts. Where either has
    no clock, rows are shared out evenly, over the frames of a grid or over rows. An input that is not there is zeros.
    A chain of projectors follows, for example `window_qformer`.
    """

    def __init__(self, in_dims: Mapping[str, int], out_dim: int) -> None:
        super().__init__()
        require_inputs(self, in_dims, 1)
        self.in_dims, self.out_dim = in_dims, sum(in_dims.values())

    def forward(self, groups: Sequence[Group], context: Context) -> Packed:
        """(S, sum of widths) rows of every group, in order."""
        require_groups(self, groups)
        rows, shapes = [], []
        for group in groups:
            leader = next(name for name in self.in_dims if name in group)
            shape, lead = group[leader].shapes[0], group[leader].x
            beside = [
                lead
                if name == leader
                else _at_moments(group[name].x.to(lead), shape, group[name].shapes[0])
                if name in group
                else lead.new_zeros(shape.len, width)
                for name, width in self.in_dims.items()
            ]
            rows.append(torch.cat(beside, -1))
            shapes.append(shape)
        return Packed.of(rows, shapes)

    def out_shape(self, shapes: Mapping[str, Shape]) -> Shape:
        """The shape of the first input that is there."""
        return next(shapes[name] for name in self.in_dims if name in shapes)


def _at_moments(rows: Tensor, lead: Shape, shape: Shape) -> Tensor:
    """(len, d) rows of another input -> (lead.len, d), one for each row of the leading one."""
    moment, stretches = _stretches(lead, shape)
    weights = rows.new_zeros(len(stretches), len(rows))
    for number, (start, stop) in enumerate(stretches):
        weights[number, start:stop] = 1 / (stop - start)
    return (weights @ rows)[moment]


def _stretches(lead: Shape, shape: Shape) -> tuple[list[int], list[tuple[int, int]]]:
    """The moment of each leading row, and the rows of the other input (from, up to) that belong to each moment."""
    if lead.times is None or shape.times is None:
        count = lead.len if lead.grid is None else lead.grid[0]
        moment = [row * count // lead.len for row in range(lead.len)]
        return moment, [(step * shape.len // count, -(-(step + 1) * shape.len // count)) for step in range(count)]
    begins = sorted(set(lead.times))
    moment = [bisect_left(begins, time) for time in lead.times]
    stretches = []
    for number, begin in enumerate(begins):
        # Nothing is left out: what begins before the first moment, or after the last one, is theirs.
        start = 0 if number == 0 else bisect_left(shape.times, begin - 1e-6)
        end = begins[number + 1] - 1e-6 if number + 1 < len(begins) else inf
        stop = bisect_left(shape.times, end)
        stretches.append((start, stop) if stop > start else (max(start - 1, 0), max(start, 1)))
    return moment, stretches
