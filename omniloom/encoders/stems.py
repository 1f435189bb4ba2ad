"""Stems without a trunk: one convolution cuts a medium into rows of one width, with learned positions.

Each modality has its own stem, and all share one transformer behind it: the projector `trunk`, named as a component.
Points have theirs in `point_net` with `depth: 0`, one long vector in `vector`.

Source: Meta-Transformer (arXiv:2307.10802), OneLLM (arXiv:2312.03700): patches of 14 pixels for pictures, videos, depth
and normal maps, of 16 x 16 every 10 for filter banks (1,212 rows of 1,024 x 128), 10 steps every step for motion
sensors (391 rows of 400 steps).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniloom.encoders.base import Encoder
from omniloom.encoders.checks import refuse_raw, require_items
from omniloom.errors import ConfigError, ShapeError
from omniloom.layers import in_stacks
from omniloom.sequence import Packed, Shape

__all__ = ["SeriesStem", "Stem"]

_SPREAD = 0.02  # of positions in the beginning, as in OneLLM


class Stem(Encoder):
    """Raw (C, Y, X) or (F, C, Y, X) pictures, or (F, M) frames of sound where C is 1, to a row for each patch.

    Pictures of another size than `size` get interpolated positions, sounds shorter than it the first of them in time.
    Rows of sounds lie on the grid (time, pitch, 1).

    Args:
        channels: C; 1 for depth maps and frames of sound.
        width: E of a row, that of the trunk.
        kernel: side of a patch.
        stride: from patch to patch; None sets them side by side.
        size: (Y, X) of pictures; of sounds (most frames, number of mels).
        bias: of the convolution.
    Raises:
        ConfigError: sizes that do not fit each other.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        width: int = 1024,
        kernel: int = 14,
        stride: int | None = None,
        size: Sequence[int] = (224, 224),
        bias: bool = True,
    ) -> None:
        super().__init__()
        step = kernel if stride is None else stride
        if len(size) != 2 or min(channels, width, kernel, step) < 1 or min(size) < kernel:
            raise ConfigError(
                f"Stem cannot have channels={channels}, width={width}, kernel={kernel}, stride={stride}, size={size}; "
                "expected numbers of at least 1, and (Y, X) that hold one patch."
            )
        self.channels, self.width, self.kernel, self.stride = channels, width, kernel, stride
        self.size, self.bias = size, bias
        self.step, self.out_dim = step, width
        self.conv = nn.Conv2d(channels, width, kernel, step, bias=bias)
        self.cells = (self._count(size[0]), self._count(size[1]))
        self.positions = nn.Parameter(torch.randn(*self.cells, width) * _SPREAD)

    def forward(self, raws: Sequence[Tensor]) -> Packed:
        """Rows in reading order: frame by frame, line by line; of a sound, time by time.

        Raises:
            ShapeError: no items, another rank or number of channels, or a side that holds no patch.
        """
        require_items(self, raws)
        shapes = tuple(self.out_shape(self._raw_shape(index, raw)) for index, raw in enumerate(raws))
        return Packed.of(in_stacks(raws, self._cut), shapes)

    def _cut(self, batch: Tensor) -> Tensor:
        is_sound = batch.dim() == 3
        pixels = batch.to(self.positions)[:, None, None] if is_sound else batch.to(self.positions)
        pixels = pixels if pixels.dim() == 5 else pixels[:, None]
        cells = self.conv(pixels.flatten(0, 1)).movedim(1, -1)
        cells = cells + self._positions(cells.shape[1], cells.shape[2], is_sound)
        return cells.flatten(1, 2).unflatten(0, pixels.shape[:2]).flatten(1, 2)

    def out_shape(self, shape: Shape) -> Shape:
        """From a grid (F, Y, X) of pixels, or from frames of sound, to the patches, each at the time it begins.

        Raises:
            ShapeError: a side that holds no patch, or more frames of sound than there are positions.
        """
        if shape.grid is None:
            if not self.kernel <= shape.len <= self.size[0]:
                raise ShapeError(
                    f"Stem got {shape.len} frames; it reads {self.kernel} to {self.size[0]}. Split or pad the sound."
                )
            t, y = self._count(shape.len), self.cells[1]
            times = shape.times
            if times is not None:
                times = tuple(times[column * self.step] for column in range(t) for _ in range(y))
            return Shape(t * y, (t, y, 1), times)
        t, y, x = shape.grid
        if min(y, x) < self.kernel:
            raise ShapeError(f"Stem got the grid {shape.grid}; expected sides of {self.kernel} pixels or more.")
        cells = (self._count(y), self._count(x))
        times = None
        if shape.times is not None:
            times = tuple(shape.times[frame * y * x] for frame in range(t) for _ in range(cells[0] * cells[1]))
        return Shape(t * cells[0] * cells[1], (t, *cells), times)

    def minimal_raw(self) -> Tensor:
        """One patch of zeros."""
        return torch.zeros(self.channels, self.kernel, self.kernel)

    def _count(self, side: int) -> int:
        return (side - self.kernel) // self.step + 1

    def _positions(self, y: int, x: int, is_sound: bool) -> Tensor:
        if is_sound:
            return self.positions[:y]
        if (y, x) == self.cells:
            return self.positions
        # In float32: bicubic weights of bfloat16 move patches.
        picture = self.positions.permute(2, 0, 1)[None].float()
        return F.interpolate(picture, (y, x), mode="bicubic", antialias=False)[0].permute(1, 2, 0).to(self.positions)

    def _raw_shape(self, index: int, raw: Tensor) -> Shape:
        if raw.dim() == 2 and self.channels == 1 and raw.shape[1] == self.size[1] and raw.shape[0] > 0:
            return Shape(raw.shape[0])
        if raw.dim() not in (3, 4) or raw.shape[-3] != self.channels or 0 in raw.shape:
            expected = f"({self.channels}, Y, X) or (F, {self.channels}, Y, X)"
            if self.channels == 1:
                expected += f", or (F, {self.size[1]}) frames of sound"
            raise refuse_raw(self, index, raw, expected, "Set `channels` and `size` to the data's.")
        frames = raw.shape[0] if raw.dim() == 4 else 1
        return Shape(frames * raw.shape[-2] * raw.shape[-1], (frames, raw.shape[-2], raw.shape[-1]))


class SeriesStem(Encoder):
    """Raw (T, channels) of up to `length` steps to 1 + (T - kernel) // stride rows.

    Args:
        channels: C of the series.
        width: E of a row, that of the trunk.
        kernel: steps of a row.
        stride: steps from row to row. ImageBind's motion sensors (arXiv:2305.05665) have 8 of 8.
        length: most steps of an item.
        bias: of the convolution.
    Raises:
        ConfigError: sizes that do not fit each other.
    """

    def __init__(
        self,
        *,
        channels: int = 6,
        width: int = 1024,
        kernel: int = 10,
        stride: int = 1,
        length: int = 400,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if min(channels, width, kernel, stride) < 1 or length < kernel:
            raise ConfigError(
                f"SeriesStem cannot have channels={channels}, width={width}, kernel={kernel}, stride={stride}, "
                f"length={length}; expected numbers of at least 1, and a length that holds one kernel."
            )
        self.channels, self.width, self.kernel, self.stride = channels, width, kernel, stride
        self.length, self.bias = length, bias
        self.out_dim = width
        self.conv = nn.Conv1d(channels, width, kernel, stride, bias=bias)
        self.positions = nn.Parameter(torch.randn(self._count(length), width) * _SPREAD)

    def forward(self, raws: Sequence[Tensor]) -> Packed:
        """Rows in time order.

        Raises:
            ShapeError: no items, another rank or number of channels, or too few or too many steps.
        """
        require_items(self, raws)
        for index, raw in enumerate(raws):
            if raw.dim() != 2 or raw.shape[1] != self.channels:
                raise refuse_raw(self, index, raw, f"(T, {self.channels})", "Set `channels` to the data's.")
        shapes = [self.out_shape(Shape(max(raw.shape[0], 1))) for raw in raws]
        return Packed.of(in_stacks(raws, self._cut), shapes)

    def _cut(self, series: Tensor) -> Tensor:
        steps: Tensor = self.conv(series.to(self.positions).transpose(1, 2)).transpose(1, 2)
        return steps + self.positions[: steps.shape[1]]

    def out_shape(self, shape: Shape) -> Shape:
        """Rows, each at the time of its first step.

        Raises:
            ShapeError: fewer steps than a row has, or more than there are positions.
        """
        if not self.kernel <= shape.len <= self.length:
            raise ShapeError(
                f"SeriesStem got {shape.len} steps; it reads {self.kernel} to {self.length}. Set `length` or resample."
            )
        rows = self._count(shape.len)
        return Shape(rows, times=None if shape.times is None else shape.times[:: self.stride][:rows])

    def minimal_raw(self) -> Tensor:
        """One row's steps of zeros."""
        return torch.zeros(self.kernel, self.channels)

    def _count(self, steps: int) -> int:
        return (steps - self.kernel) // self.stride + 1
