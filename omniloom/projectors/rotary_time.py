"""Rows rotated by the time they stand for, in seconds: the language model can tell when, and how far apart.

Pairs of channels turn by an angle of their own speed. Source: Rotary Time Embeddings of OMCAT (arXiv:2410.12109),
angles -2 pi t b^(-2i / d) of absolute seconds in place of indices; Constrained Rotary Time Embedding of OmniVinci
(arXiv:2510.15870), angles 2 pi t / (T b^(2i / d)) with T the longest time and b = 5, so the fastest pair turns once in
T.
"""

from __future__ import annotations

from math import pi

import torch

from omniloom.errors import ConfigError, ShapeError
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.width import require_width
from omniloom.sequence import Packed, Shape

__all__ = ["RotaryTime"]


class RotaryTime(Projector):
    """(S, in_dim) rows, their pairs of channels turned; no weights, `out_dim` is `in_dim`.

    Args:
        max_time_s: the longest time that all angles tell apart, OmniVinci's; None: OMCAT's angles, which turn fast.
        base: of the speeds; None: 10,000, or 5 with `max_time_s`.
    Raises:
        ConfigError: an odd width, or a number that is not positive.
    """

    def __init__(
        self, in_dim: int, out_dim: int, *, max_time_s: float | None = None, base: float | None = None
    ) -> None:
        super().__init__()
        if in_dim % 2 or (max_time_s is not None and max_time_s <= 0) or (base is not None and base <= 0):
            raise ConfigError(
                f"RotaryTime got rows {in_dim} wide, max_time_s={max_time_s}, base={base}; expected an even width and "
                "positive numbers."
            )
        self.in_dim, self.out_dim, self.max_time_s, self.base = in_dim, in_dim, max_time_s, base

    def forward(self, packed: Packed, context: Context) -> Packed:
        """Each row turned by its time; shapes stay.

        Raises:
            ShapeError: an item without times.
        """
        require_width(self, packed)
        times = [time for shape in packed.shapes for time in self._times(shape)]
        # In float64: an hour is 22,619 radians, where float32 steps by 0.002.
        angles = torch.tensor(times, dtype=torch.float64, device="cpu")[:, None] * self._speeds()
        cos, sin = (value.to(packed.x.device, torch.float32) for value in (angles.cos(), angles.sin()))
        even, odd = packed.x.float().unflatten(1, (-1, 2)).unbind(-1)
        turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], -1).flatten(1)
        return Packed(turned.to(packed.x), packed.shapes)

    def out_shape(self, shape: Shape) -> Shape:
        """As it was.

        Raises:
            ShapeError: no times.
        """
        self._times(shape)
        return shape

    def _speeds(self) -> torch.Tensor:
        """(in_dim / 2,) radians a second."""
        steps = torch.arange(0, self.in_dim, 2, dtype=torch.float64, device="cpu") / self.in_dim
        if self.max_time_s is None:
            return -2 * pi * (self.base or 10_000.0) ** -steps
        return 2 * pi / self.max_time_s * (self.base or 5.0) ** -steps

    def _times(self, shape: Shape) -> tuple[float, ...]:
        if shape.times is None:
            raise ShapeError(
                f"RotaryTime got an item of {shape.len} rows without times; expected seconds for each. Take an encoder "
                "whose rows have a clock, and no part before this one that drops it."
            )
        return shape.times
