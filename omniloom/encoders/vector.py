"""One long vector without an order in time or space: voxels of a brain scan, a panel of measurements.

A linear map cuts the vector into rows. Source: fMRI in OneLLM (arXiv:2312.03700): 15,724 voxels, 8 rows of width 1,024.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from omniloom.encoders.base import Encoder, Processor
from omniloom.encoders.checks import refuse_raw, require_items
from omniloom.encoders.payload_checks import require_payload
from omniloom.errors import ConfigError, MediaError, ShapeError
from omniloom.layers import by_shape
from omniloom.media import Series
from omniloom.sequence import Packed, Shape

__all__ = ["VectorEncoder", "VectorProcessor"]


class VectorProcessor(Processor):
    """Series to raw (V,): the channels of its only step, or the steps of its only channel.

    Args:
        length: V of every item; None takes any.
        normalize: the item to mean 0 and deviation 1; otherwise the values stay as they are.
    Raises:
        ConfigError: a length below one.
    """

    payload_kind = "series"

    def __init__(self, *, length: int | None = None, normalize: bool = False) -> None:
        if length is not None and length < 1:
            raise ConfigError(f"length={length} of a vector; expected at least one value, or None for any.")
        self.length, self.normalize = length, normalize

    def __call__(self, payload: Any, rng: torch.Generator | None = None) -> Tensor:
        """The raw tensor of one vector; nothing is random.

        Raises:
            MediaError: wrong_payload; invalid_series, several steps of several channels or another length.
        """
        values = require_payload(payload, Series, self).values
        if min(values.shape) != 1:
            raise MediaError(
                "invalid_series",
                f"a vector is one step of many channels, or many steps of one; got {values.shape[0]} steps of "
                f"{values.shape[1]} channels. Flatten it first, or take the processor 'series'.",
            )
        raw = torch.from_numpy(values.reshape(-1).copy())
        if self.length is not None and len(raw) != self.length:
            raise MediaError("invalid_series", f"a vector of {len(raw)} values; expected {self.length} of every item.")
        return (raw - raw.mean()) / raw.std(correction=0).clamp(min=1e-6) if self.normalize else raw

    def shape(self, raw: Tensor) -> Shape:
        """One row per value."""
        return Shape(raw.shape[0])


class VectorEncoder(Encoder):
    """Raw (length,) to `rows` rows of `width`, without place or time.

    Number `c` of row `r` is output `c * rows + r` of the map, as OneLLM cuts it.

    Args:
        length: V of the data.
        rows: rows of an item.
        width: E of a row.
    Raises:
        ConfigError: a size below one.
    """

    def __init__(self, *, length: int, rows: int = 8, width: int = 1024) -> None:
        super().__init__()
        if min(length, rows, width) < 1:
            raise ConfigError(
                f"length={length}, rows={rows}, width={width} of a vector; expected at least one of each."
            )
        self.length, self.rows, self.width = length, rows, width
        self.out_dim = width
        self.map = nn.Linear(length, rows * width)

    def forward(self, raws: Sequence[Tensor]) -> Packed:
        """`rows` rows an item.

        Raises:
            ShapeError: no items, or a vector of another length.
        """
        require_items(self, raws)
        for index, raw in enumerate(raws):
            if raw.shape != (self.length,):
                raise refuse_raw(self, index, raw, f"({self.length},)", "Set `length` to the data's.")
        _, vectors = next(by_shape(list(raws)))
        rows = self.map(vectors.to(self.map.weight)).unflatten(1, (self.width, self.rows)).transpose(1, 2)
        return Packed(rows.flatten(0, 1), tuple(self.out_shape(Shape(self.length)) for _ in raws))

    def out_shape(self, shape: Shape) -> Shape:
        """`rows` rows.

        Raises:
            ShapeError: a vector of another length.
        """
        if shape.len != self.length:
            raise ShapeError(
                f"VectorEncoder got {shape.len} values; it reads {self.length}. Set `length` to the data's."
            )
        return Shape(self.rows)

    def minimal_raw(self) -> Tensor:
        """Zeros."""
        return torch.zeros(self.length)
