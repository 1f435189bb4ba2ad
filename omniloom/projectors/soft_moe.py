"""One projector for all modalities: shared experts, mixed by a router that each modality has of its own.

Source: the universal projection module of OneLLM (arXiv:2312.03700), section 3.2 and its published code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from omniloom.errors import ConfigError
from omniloom.layers import Attention, SwiGLU
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.own import Own
from omniloom.projectors.width import require_width
from omniloom.sequence import Packed, Shape

__all__ = ["SoftMoE"]


class SoftMoE(Projector):
    """(S, in_dim) rows of any lengths to (items * queries, out_dim).

    Each expert is a stack of transformer blocks over [queries; rows] and all of them run; what they make of the queries
    is summed by weights that add up to one: the sigmoids of the modality's router over their sum. The router reads the
    queries, so a modality mixes the experts in one way for each query, whatever the item.

    `own.NAME` of a modality: its queries, the maps into and out of the experts, its router. `experts` are shared and of
    equal structure, so that one can be copied into another.

    Args:
        queries: rows an item becomes. OneLLM: 30.
        experts: stacks that are mixed.
        width: of queries and experts, a multiple of `heads`. OneLLM: 1,024 with 16 heads.
        depth: blocks of an expert. OneLLM: 8.
        heads: of the attention in a block.
    Raises:
        ConfigError: a count below one, fewer than two experts, or a width that the heads do not divide.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        queries: int = 16,
        experts: int = 3,
        width: int = 256,
        depth: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        if min(queries, width, depth, heads) < 1 or experts < 2:
            raise ConfigError("SoftMoE needs queries, width, depth and heads of at least one, and two experts to mix.")
        self.in_dim, self.out_dim = in_dim, out_dim
        self.queries, self.experts, self.width, self.depth, self.heads = queries, experts, width, depth, heads
        self.expert = nn.ModuleList(nn.ModuleList(_Block(width, heads) for _ in range(depth)) for _ in range(experts))
        self.own = Own()

    def serve(self, modality: str) -> None:
        """Queries, maps and a router of the modality's own."""
        self.own.claim(modality, lambda: _Branch(self))

    def forward(self, packed: Packed, context: Context) -> Packed:
        """Queries of every item, in order; an item sees its own rows only.

        Raises:
            ConfigError: a modality that was not served.
        """
        require_width(self, packed)
        branch = self.own.of(context.modality, self)
        assert isinstance(branch, _Branch)
        padded, mask = packed.padded()
        queries = branch.query.expand(len(packed), -1, -1)
        start = torch.cat([queries, branch.in_norm(branch.in_map(padded.to(branch.query)))], 1)
        is_real = torch.cat([mask.new_ones(queries.shape[:2]), mask], 1)
        weights = branch.weights()
        mixed = torch.zeros_like(queries)
        for index, expert in enumerate(self.expert):
            x = start
            for block in expert:  # type: ignore[attr-defined]
                x = block(x, is_real)
            mixed = mixed + weights[:, index, None] * x[:, : self.queries]
        rows = branch.out_norm(branch.out_map(mixed))
        return Packed(rows.flatten(0, 1), tuple(self.out_shape(shape) for shape in packed.shapes))

    def out_shape(self, shape: Shape) -> Shape:
        """`queries` rows without place or time: every query sees the whole item."""
        return Shape(self.queries)


class _Branch(nn.Module):
    """What a modality has of its own."""

    def __init__(self, part: SoftMoE) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(part.queries, part.width))
        # Queries must differ from the start, or all of them read the same mixture and stay equal for long.
        nn.init.normal_(self.query)
        self.in_map = nn.Linear(part.in_dim, part.width)
        self.in_norm = nn.LayerNorm(part.width)
        self.router = nn.Sequential(
            nn.Linear(part.width, 4 * part.width), nn.GELU(), nn.Linear(4 * part.width, part.experts)
        )
        self.out_map = nn.Linear(part.width, part.out_dim)
        self.out_norm = nn.LayerNorm(part.out_dim)

    def weights(self) -> Tensor:
        """(queries, experts), each row adding up to one."""
        opened = self.router(self.query).sigmoid()
        return opened / opened.sum(-1, keepdim=True)


class _Block(nn.Module):
    """Self-attention and a gated feed-forward, each behind an RMS norm and added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        # Two thirds of four widths: the gate is a third matrix, so the block is as large as one without (LLaMA).
        self.mlp = SwiGLU(width, 8 * width // 3)

    def forward(self, x: Tensor, key_mask: Tensor) -> Tensor:
        return self.mlp(x + self.attention(self.norm(x), key_mask=key_mask))
