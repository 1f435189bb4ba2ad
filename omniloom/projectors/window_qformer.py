"""A Q-Former for long sequences: each window of rows gets queries of its own, which also see the windows before.

Source: the causal Q-Former of FAVOR (arXiv:2310.05863) and the multi-resolution one of video-SALMONN
(arXiv:2406.15704): windows of several lengths side by side, each with as many queries as its length deserves, summed
row by row, and a loss that keeps the queries of a window different. Without `causal`, and with one window and query,
it is the window-level Q-Former of SALMONN (arXiv:2310.13289).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniloom.errors import ConfigError
from omniloom.layers import Block, pad_rows
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.qformer import new_queries
from omniloom.projectors.width import require_width
from omniloom.projectors.windowing import Windows, cut, cut_lengths
from omniloom.sequence import Auxiliary, Packed, Shape

__all__ = ["WindowQFormer"]


class WindowQFormer(Projector):
    """(S, in_dim) to `queries` rows of out_dim for each of an item's longest windows, in order of time.

    A window of a resolution k times finer than the longest has k times fewer queries; its rows are added to those of
    the longest window that it lies in, at its place there. One trunk serves all resolutions. A window cut short by the
    end of the item, or by a gap in its clock, gives all of its rows; one without any row of the item gives none.

    Args:
        windows: rows in a window, one number a resolution. video-SALMONN: 1 and 10 frames. A frame of several rows
            counts as several.
        windows_s: seconds in a window instead, for rows with a clock: row t lies in window floor(t / seconds).
        queries: of a longest window; the shorter ones have a whole fraction of them. video-SALMONN: 30.
        width: of the queries and blocks, a multiple of `heads`.
        depth: blocks. The first block cross-attends, then every `cross_every`-th.
        causal: queries also attend to those of all windows before; if not, to those of their own window alone.
        diversity: weight of the loss "diversity", the mean cosine of different queries of a window; 0 for none.
    Raises:
        ConfigError: a count below one, windows that do not divide the longest, queries that they do not divide, or a
            width that the heads do not divide.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        windows: Sequence[int] = (10,),
        windows_s: Sequence[float] | None = None,
        queries: int = 10,
        width: int = 256,
        depth: int = 2,
        heads: int = 4,
        cross_every: int = 1,
        causal: bool = True,
        diversity: float = 0.01,
    ) -> None:
        super().__init__()
        if min(queries, width, depth, heads, cross_every) < 1 or diversity < 0:
            raise ConfigError(
                "WindowQFormer needs queries, width, depth, heads and cross_every of at least one, "
                "and a diversity that is not negative."
            )
        self.in_dim, self.out_dim = in_dim, out_dim
        self.windows, self.windows_s, self.queries = windows, windows_s, queries
        self.width, self.depth, self.heads, self.cross_every = width, depth, heads, cross_every
        self.causal, self.diversity = causal, diversity
        self.lengths = cut_lengths(windows, windows_s)
        self.longest = max(self.lengths)
        for length in self.lengths:
            if queries * length % self.longest:
                raise ConfigError(
                    f"WindowQFormer cannot share {queries} queries among the {self.longest // length} windows of a "
                    "shorter resolution. Take queries that is a multiple of longest / shortest."
                )
        self.query = nn.ParameterList(new_queries(queries * length // self.longest, width) for length in self.lengths)
        self.memory_norm = nn.LayerNorm(in_dim)
        self.memory_map = nn.Linear(in_dim, width)
        self.blocks = nn.ModuleList(
            Block(width, heads, memory_width=None if index % cross_every else width) for index in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.map = nn.Linear(width, out_dim)

    def forward(self, packed: Packed, context: Context) -> Packed:
        """Rows of every item's windows, in order, with the loss "diversity".

        Raises:
            ShapeError: windows in seconds and rows without times.
        """
        require_width(self, packed)
        memory = self.memory_map(self.memory_norm(packed.x.to(self.map.weight)))
        base = cut(packed.shapes, self.longest, in_time=self.windows_s is not None)
        first = {key: index * self.queries for index, key in enumerate(base.keys)}
        x = memory.new_zeros(len(base.keys) * self.queries, self.width)
        totals: list[Tensor] = []
        count = 0
        for length, query in zip(self.lengths, self.query, strict=True):
            finer = self.longest // length
            windows = base if finer == 1 else cut(packed.shapes, length, in_time=self.windows_s is not None)
            read = self.norm(self._read(memory, windows, query))
            places = [first[item, index // finer] + index % finer * query.shape[0] for item, index in windows.keys]
            steps = torch.arange(query.shape[0], device=x.device)
            at = torch.tensor(places, device=x.device)[:, None] + steps
            x = x.index_add(0, at.flatten(), read.flatten(0, 1))
            if query.shape[0] > 1:
                totals.append(likeness(read).sum())
                count += len(windows.keys)
        losses = {}
        if totals and self.diversity:
            total = torch.stack(totals).sum()
            losses["diversity"] = Auxiliary(total, total.new_tensor(count), weight=self.diversity)
        return Packed(self.map(x), tuple(self.out_shape(shape) for shape in packed.shapes), losses=losses)

    def out_shape(self, shape: Shape) -> Shape:
        """`queries` rows for each longest window that has rows, each at the time of the window's first.

        Raises:
            ShapeError: windows in seconds and rows without times.
        """
        windows = cut((shape,), self.longest, in_time=self.windows_s is not None)
        times = None
        if shape.times is not None:
            times = tuple(shape.times[start] for start in windows.starts for _ in range(self.queries))
        return Shape(len(windows.keys) * self.queries, times=times)

    def _read(self, memory: Tensor, windows: Windows, query: Tensor) -> Tensor:
        """(S, width) rows to (windows, queries of one, width)."""
        if windows.order is not None:
            memory = memory[torch.tensor(windows.order, device=memory.device)]
        rows, counts = pad_rows(memory.split(windows.counts))
        is_row = torch.arange(rows.shape[1], device=rows.device) < counts[:, None]
        x = query.expand(len(windows.keys), -1, -1)
        for block in cast("Iterable[Block]", self.blocks):
            x = self._attend(block, x, windows.per_item) if self.causal else block.attend(x)
            x = block.feed(block.read(x, rows, is_row))
        return x

    def _attend(self, block: Block, x: Tensor, per_item: Sequence[int]) -> Tensor:
        """Self-attention of queries over those of their own window and the windows before it in the same item."""
        windows, lengths = pad_rows(x.split(list(per_item)))
        steps = torch.arange(windows.shape[1], device=x.device)
        is_real = steps < lengths[:, None]
        is_past = steps[None] <= steps[:, None]
        mask = is_past[None] & is_real[:, None]
        count = x.shape[1]
        mask = mask.repeat_interleave(count, 1).repeat_interleave(count, 2)
        mixed = block.attend(windows.flatten(1, 2), mask).unflatten(1, (-1, count))
        return mixed[is_real]


def likeness(x: Tensor) -> Tensor:
    """(windows, queries, width) to the (windows,) mean cosine of two different queries of a window, in float32."""
    unit = F.normalize(x.float(), dim=-1)
    count = x.shape[1]
    both = unit.sum(1).square().sum(-1) - unit.square().sum((1, 2))
    return both / (count * (count - 1))
