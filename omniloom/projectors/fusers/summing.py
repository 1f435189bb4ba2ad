"""Sums over modalities: items of one shared space, added row by row.

Source: the sum of the modalities' embeddings in PandaGPT (arXiv:2305.16355); normalised and weighted by the
user in ImageBind-LLM (arXiv:2309.03905) Neither has weights to learn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from omniloom.errors import ConfigError, ShapeError, did_you_mean
from omniloom.projectors.base import Context
from omniloom.projectors.fusers.inputs import require_groups, same_width
from omniloom.projectors.fusing import Fuser, Group
from omniloom.sequence import Packed, Shape

__all__ = ["Sum", "Weighted"]


class Sum(Fuser):
    """Items of equally many rows, most often one each, to the sum of their rows.

    Inputs and output have one width; a projector may follow. What the items have in common of a grid and times, the sum
    has too.

    Raises:
        ConfigError: inputs of several widths.
    """

    def __init__(self, in_dims: Mapping[str, int], out_dim: int) -> None:
        super().__init__()
        self.in_dims, self.out_dim = in_dims, same_width(self, in_dims)

    def forward(self, groups: Sequence[Group], context: Context) -> Packed:
        """(groups * rows, width) sums, in order.

        Raises:
            ShapeError: items of different lengths in one group.
        """
        require_groups(self, groups)
        shapes = [self.out_shape({name: packed.shapes[0] for name, packed in group.items()}) for group in groups]
        return Packed.of([torch.stack([part.x for part in group.values()]).sum(0) for group in groups], shapes)

    def out_shape(self, shapes: Mapping[str, Shape]) -> Shape:
        """As many rows as each item has.

        Raises:
            ShapeError: as `forward`.
        """
        return _common_shape(self, shapes)


class Weighted(Fuser):
    """Items of equally many rows to the weighted mean of their rows, each scaled to length one.

    Args:
        weights: input -> its weight, 1 for those that are not named. In a group they are divided by their sum, so that
            an input that is not there leaves its share to the others.
    Raises:
        ConfigError: inputs of several widths; a weight of no input, or one that is not above zero.
    """

    def __init__(self, in_dims: Mapping[str, int], out_dim: int, *, weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.in_dims, self.out_dim, self.weights = in_dims, same_width(self, in_dims), weights
        for name, weight in (weights or {}).items():
            if name not in in_dims:
                raise ConfigError(f"Weighted has a weight of {name!r}.{did_you_mean(name, in_dims)}")
            if not weight > 0:
                raise ConfigError(f"Weighted got the weight {weight} of {name!r}; expected one above zero.")

    def forward(self, groups: Sequence[Group], context: Context) -> Packed:
        """(groups * rows, width) means, in order.

        Raises:
            ShapeError: items of different lengths in one group.
        """
        require_groups(self, groups)
        shapes = [self.out_shape({name: packed.shapes[0] for name, packed in group.items()}) for group in groups]
        rows = []
        for group in groups:
            shares = {name: (self.weights or {}).get(name, 1.0) for name in group}
            total = sum(shares.values())
            parts = [F.normalize(packed.x, dim=-1) * (shares[name] / total) for name, packed in group.items()]
            rows.append(torch.stack(parts).sum(0))
        return Packed.of(rows, shapes)

    def out_shape(self, shapes: Mapping[str, Shape]) -> Shape:
        """As many rows as each item has.

        Raises:
            ShapeError: as `forward`.
        """
        return _common_shape(self, shapes)


def _common_shape(fuser: Fuser, shapes: Mapping[str, Shape]) -> Shape:
    first, *others = shapes.values()
    if any(shape.len != first.len for shape in others):
        lengths = ", ".join(f"{name} {shape.len}" for name, shape in shapes.items())
        raise ShapeError(
            f"{type(fuser).__name__} adds items of equally many rows, got {lengths}. End their projectors with `pool`."
        )
    return replace(
        first,
        grid=first.grid if all(shape.grid == first.grid for shape in others) else None,
        times=first.times if all(shape.times == first.times for shape in others) else None,
        mosaic=first.mosaic if all(shape.mosaic == first.mosaic for shape in others) else None,
    )
