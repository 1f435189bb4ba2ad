"""Fewer rows of a video in space and time at once: convolve frames, downsample by a 3-D convolution, convolve again.

Source: the spatial-temporal convolution connector of VideoLLaMA2 (arXiv:2406.07476); its variant STP
averages instead. The first release pads by one on every side before it strides, so 16 frames of 24 x 24 become 9 of
13 x 13; later ones do not pad.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from omniloom.errors import ConfigError, ShapeError
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.grids import require_grid, through_grids, times_at
from omniloom.projectors.regstage import RegStage, readout
from omniloom.sequence import Packed, Shape

__all__ = ["STC"]


class STC(Projector):
    """(t, y, x) grids to about (t / a, y / b, x / c) of width out_dim.

    Args:
        downsample: a, b and c; VideoLLaMA2: 2, 2, 2, and 1, 2, 2 with depth 0 as the variants "spatial".
        kind: "conv": a convolution as large as its stride, then SiLU (STC); "mean": the mean of a x b x c cells, then
            SiLU (STP).
        padding: zeros at both ends of every axis that is downsampled by more than that, so that no block is padding
            alone. With 0, and always with "mean", cells that fill no block at the end of an axis are dropped.
        depth: bottlenecks before, and again after. VideoLLaMA2: 4.
        width: of the bottlenecks and the convolution; None: the language model's, as in VideoLLaMA2.
        layers: linear maps at the end, with GELU between them.
    Raises:
        ConfigError: `downsample` is not three counts, a count below one, an unknown kind, or padding that cannot be.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        downsample: Sequence[int] = (2, 2, 2),
        kind: Literal["conv", "mean"] = "conv",
        padding: int = 1,
        depth: int = 2,
        width: int | None = 256,
        layers: int = 2,
    ) -> None:
        super().__init__()
        if len(downsample) != 3 or min(downsample) < 1 or kind not in ("conv", "mean"):
            raise ConfigError(
                f"STC got downsample={downsample!r} and kind={kind!r}; expected three counts of at least one for "
                "(t, y, x), and 'conv' or 'mean'."
            )
        if depth < 0 or layers < 1 or (width is not None and width < 1):
            raise ConfigError(
                f"STC needs depth >= 0, layers >= 1 and a width of at least one, got {depth}, {layers} and {width}."
            )
        if padding < 0 or (padding and kind == "mean"):
            raise ConfigError(f"STC cannot pad by {padding} with kind={kind!r}: only 'conv' pads. Set padding: 0.")
        self.in_dim, self.out_dim = in_dim, out_dim
        self.downsample, self.kind, self.padding = downsample, kind, padding
        self.depth, self.width, self.layers = depth, width, layers
        inner = (width or out_dim) if depth else in_dim
        self.before = RegStage(depth, in_dim, inner)
        a, b, c = downsample
        size = (a, b, c)
        self.pads = (padding if a > padding else 0, padding if b > padding else 0, padding if c > padding else 0)
        self.sampler = nn.Conv3d(inner, inner, size, size, self.pads) if kind == "conv" else _BlockMean(size)
        self.after = RegStage(depth, inner, inner)
        self.readout = readout(layers, inner, out_dim, nn.GELU)

    def forward(self, packed: Packed, context: Context) -> Packed:
        """(S, in_dim) to (S', out_dim).

        Raises:
            ShapeError: an item without a grid, of tiles, or too small for one block.
        """
        return through_grids(self, packed, self._connected)

    def out_shape(self, shape: Shape) -> Shape:
        """The smaller grid, each row at the time of the first real cell it covers.

        Raises:
            ShapeError: as `forward`.
        """
        grid = require_grid(self, shape)
        if shape.mosaic is not None and self.downsample[0] > 1:
            raise ShapeError(
                f"STC got the tiles {shape.mosaic} of one picture; expected frames in time. Put tiles together with "
                "`mosaic`, or take downsample [1, 2, 2]."
            )
        axes = list(zip(grid, self.downsample, self.pads, strict=True))
        small = [(n + 2 * pad - by) // by + 1 for n, by, pad in axes]
        if min(small) < 1:
            raise ShapeError(
                f"STC got the grid {grid}; expected at least one block of {list(self.downsample)}. Take a smaller "
                "`downsample`, e.g. [1, 2, 2] for pictures, or padding 1."
            )
        firsts = [
            [max(0, index * by - pad) for index in range(count)]
            for count, (_, by, pad) in zip(small, axes, strict=True)
        ]
        t, y, x = small
        mosaic = shape.mosaic if t == grid[0] else None
        return Shape(t * y * x, (t, y, x), times_at(shape, *firsts), mosaic)

    def _connected(self, grid: Tensor) -> Tensor:
        x = grid.to(next(self.readout.parameters())).permute(0, 1, 4, 2, 3)
        x = self.before(x.flatten(0, 1)).unflatten(0, grid.shape[:2])
        x = F.silu(self.sampler(x.transpose(1, 2))).transpose(1, 2)
        x = self.after(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return self.readout(x.permute(0, 1, 3, 4, 2))


class _BlockMean(nn.Module):
    """Means of whole blocks of (B, C, T, Y, X): AvgPool3d, in every dtype on every device."""

    def __init__(self, size: tuple[int, ...]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        for axis, by in zip((2, 3, 4), self.size, strict=True):
            blocks = x.shape[axis] // by
            x = x.narrow(axis, 0, blocks * by).unflatten(axis, (blocks, by)).mean(axis + 1)
        return x
