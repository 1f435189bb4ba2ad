"""Fewer rows: average them into a fixed number or by neighbours, or stack neighbours into wider rows. No weights.

All are links of a chain: `out_dim` tells the width they truly give, whatever width was wired.
Source: average pooling and frame stacking in front of a linear map, e.g. SLAM-LLM (arXiv:2402.08846), stacking 5;
averages of neighbouring rows of sound, Qwen-Audio (arXiv:2311.07919), by 2, and MiniCPM-o, by 5; averages over the
frames of a video, Video-ChatGPT (arXiv:2306.05424).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F

from omniloom.errors import ConfigError, ShapeError
from omniloom.layers import in_stacks
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.grids import require_grid
from omniloom.projectors.width import require_width
from omniloom.sequence import Packed, Shape

__all__ = ["Average", "Pool", "Stack"]


class Pool(Projector):
    """Each item's rows averaged into exactly `tokens` rows; keeps the width, so `out_dim` is `in_dim`.

    Row i is the mean of the rows floor(i n / tokens) up to ceil((i + 1) n / tokens): neighbours overlap where n is not
    a multiple, and rows repeat where n is smaller. A grid is pooled in reading order.
    """

    def __init__(self, in_dim: int, out_dim: int, *, tokens: int = 4) -> None:
        super().__init__()
        if tokens < 1:
            raise ConfigError(f"Pool needs at least one token, got tokens={tokens}.")
        self.in_dim, self.out_dim, self.tokens = in_dim, in_dim, tokens

    def forward(self, packed: Packed, context: Context) -> Packed:
        """(S, in_dim) to (items * tokens, in_dim)."""
        require_width(self, packed)
        pooled = in_stacks(
            list(packed.items()),
            lambda batch: F.adaptive_avg_pool1d(batch.transpose(1, 2), self.tokens).transpose(1, 2),
        )
        return Packed.of(pooled, [self.out_shape(shape) for shape in packed.shapes])

    def out_shape(self, shape: Shape) -> Shape:
        """`tokens` rows, each at the time of the first row it covers."""
        times = shape.times
        if times is not None:
            times = tuple(times[index * shape.len // self.tokens] for index in range(self.tokens))
        return Shape(self.tokens, times=times)


class Average(Projector):
    """Each `factor` neighbours averaged: rows in reading order, or the frames of a grid, cell by cell.

    The last average of an item is over what is left of it. Keeps the width, so `out_dim` is `in_dim`.

    Args:
        factor: how many become one; None: all of them.
        over: "rows", or "frames": the rows of one cell in neighbouring frames; a picture is its own average.
    Raises:
        ConfigError: a factor below one, or another `over`.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        factor: int | None = 2,
        over: Literal["rows", "frames"] = "rows",
    ) -> None:
        super().__init__()
        if factor is not None and factor < 1:
            raise ConfigError(f"Average needs a factor of at least one, got factor={factor}. None averages all.")
        if over not in ("rows", "frames"):
            raise ConfigError(f"Average is over 'rows' or 'frames', got over={over!r}.")
        self.in_dim, self.out_dim, self.factor, self.over = in_dim, in_dim, factor, over

    def forward(self, packed: Packed, context: Context) -> Packed:
        """(S, in_dim) to (S', in_dim).

        Raises:
            ShapeError: averages over frames of an item without a grid, or of one whose pictures are tiles.
        """
        require_width(self, packed)
        rows: list[torch.Tensor] = []
        for item, shape in zip(packed.items(), packed.shapes, strict=True):
            count, cells = self._axis(shape)
            factor = self.factor or count
            filled = F.pad(item.unflatten(0, (count, cells)), (0, 0, 0, 0, 0, -count % factor))
            sums = filled.unflatten(0, (-1, factor)).sum(1)
            sizes = torch.full((sums.shape[0], 1, 1), factor, dtype=item.dtype, device=item.device)
            sizes[-1] = count - factor * (sums.shape[0] - 1)
            rows.append((sums / sizes).flatten(0, 1))
        return Packed.of(rows, [self.out_shape(shape) for shape in packed.shapes])

    def out_shape(self, shape: Shape) -> Shape:
        """ceil(count / factor) rows or frames, each at the time of its first.

        Raises:
            ShapeError: as `forward`.
        """
        count, cells = self._axis(shape)
        factor = self.factor or count
        times = shape.times
        if times is not None:
            frames = [times[start * cells : (start + 1) * cells] for start in range(0, count, factor)]
            times = tuple(time for frame in frames for time in frame)
        after = -(-count // factor)
        return Shape(after * cells, None if self.over == "rows" else (after, *require_grid(self, shape)[1:]), times)

    def _axis(self, shape: Shape) -> tuple[int, int]:
        """How many stand along the averaged axis, and how many rows each of them is."""
        if self.over == "rows":
            return shape.len, 1
        grid = require_grid(self, shape)
        if shape.mosaic is not None:
            raise ShapeError(
                f"Average over frames got the tiles {shape.mosaic} of one picture; expected frames in time. "
                "Put tiles together with `mosaic`, or average over rows."
            )
        return grid[0], grid[1] * grid[2]


class Stack(Projector):
    """Each `factor` neighbouring rows side by side as one: `out_dim` is in_dim * factor, rows are ceil(n / factor).

    Zeros fill the last row of an item where rows run out.
    """

    def __init__(self, in_dim: int, out_dim: int, *, factor: int = 4) -> None:
        super().__init__()
        if factor < 1:
            raise ConfigError(f"Stack needs a factor of at least one, got factor={factor}.")
        self.in_dim, self.out_dim, self.factor = in_dim, in_dim * factor, factor

    def forward(self, packed: Packed, context: Context) -> Packed:
        """(S, in_dim) to (S', in_dim * factor)."""
        require_width(self, packed)
        rows = [
            F.pad(item, (0, 0, 0, -item.shape[0] % self.factor)).reshape(-1, self.out_dim) for item in packed.items()
        ]
        return Packed.of(rows, [self.out_shape(shape) for shape in packed.shapes])

    def out_shape(self, shape: Shape) -> Shape:
        """ceil(len / factor) rows, each at the time of its first."""
        times = None if shape.times is None else shape.times[:: self.factor]
        return Shape(-(-shape.len // self.factor), times=times)
