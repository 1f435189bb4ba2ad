"""Learned queries that read an item's rows by cross-attention: any number of rows becomes `queries` rows.

Source: the Querying Transformer of BLIP-2 (arXiv:2301.12597), section 3.1; here pre-norm, without the text branch, and
cross-attending in every `cross_every`-th block (BLIP-2: every second of twelve).
"""

from __future__ import annotations

import torch
from torch import nn

from omniloom.errors import ConfigError
from omniloom.layers import Block
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.width import require_width
from omniloom.sequence import Packed, Shape

__all__ = ["QFormer"]


class QFormer(Projector):
    """(S, in_dim) rows of any lengths to (items * queries, out_dim).

    Args:
        queries: rows an item becomes.
        width: of the queries and blocks, a multiple of `heads`.
        depth: blocks. The first block cross-attends, then every `cross_every`-th.
    Raises:
        ConfigError: a count below one, or a width that the heads do not divide.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        queries: int = 16,
        width: int = 256,
        depth: int = 2,
        heads: int = 4,
        cross_every: int = 1,
    ) -> None:
        super().__init__()
        if min(queries, width, depth, heads, cross_every) < 1:
            raise ConfigError("QFormer needs queries, width, depth, heads and cross_every of at least one.")
        self.in_dim, self.out_dim = in_dim, out_dim
        self.queries, self.width, self.depth, self.heads, self.cross_every = queries, width, depth, heads, cross_every
        self.query = nn.Parameter(torch.empty(queries, width))
        # Queries must differ from the start, or all of them read the same mixture and stay equal for long.
        nn.init.normal_(self.query)
        self.memory_norm = nn.LayerNorm(in_dim)
        self.memory_map = nn.Linear(in_dim, width)
        self.blocks = nn.ModuleList(
            Block(width, heads, memory_width=None if index % cross_every else width) for index in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.map = nn.Linear(width, out_dim)

    def forward(self, packed: Packed, context: Context) -> Packed:
        """Queries of every item, in order; an item sees its own rows only."""
        require_width(self, packed)
        padded, mask = packed.padded()
        memory = self.memory_map(self.memory_norm(padded.to(self.query)))
        x = self.query.expand(len(packed), -1, -1)
        for block in self.blocks:
            x = block(x, memory=memory, memory_mask=mask)
        return Packed(self.map(self.norm(x)).flatten(0, 1), tuple(self.out_shape(shape) for shape in packed.shapes))

    def out_shape(self, shape: Shape) -> Shape:
        """`queries` rows without place or time: every query sees the whole item."""
        return Shape(self.queries)
