"""Fewer rows: average them into a fixed number, or stack neighbours into wider rows. No weights.

Both are links of a chain: `out_dim` tells the width they truly give, whatever width was wired.
Source: average pooling and frame stacking in front of a linear map, e.g. SLAM-LLM (arXiv:2402.08846), stacking 5.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from omniloom.errors import ConfigError
from omniloom.layers import by_shape
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.width import require_width
from omniloom.sequence import Packed, Shape

__all__ = ["Pool", "Stack"]


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
        rows = list(packed.items())
        pooled: list[torch.Tensor] = [packed.x] * len(rows)
        for indices, batch in by_shape(rows):
            means = F.adaptive_avg_pool1d(batch.transpose(1, 2), self.tokens).transpose(1, 2)
            for index, item in zip(indices, means, strict=True):
                pooled[index] = item
        return Packed.of(pooled, [self.out_shape(shape) for shape in packed.shapes])

    def out_shape(self, shape: Shape) -> Shape:
        """`tokens` rows, each at the time of the first row it covers."""
        times = shape.times
        if times is not None:
            times = tuple(times[index * shape.len // self.tokens] for index in range(self.tokens))
        return Shape(self.tokens, times=times)


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
