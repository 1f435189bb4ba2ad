"""Learned queries that read an item's rows by cross-attention: any number of rows becomes `queries` rows.

Source: the Querying Transformer of BLIP-2 (arXiv:2301.12597), section 3.1; here pre-norm, and cross-attending in every
`cross_every`-th block (BLIP-2: every second of twelve). One trunk for several modalities with queries of their own:
ChatBridge (arXiv:2305.16103). Adapters of their own besides: CREMA (arXiv:2402.05889), PathWeave (arXiv:2410.20178).
Queries that know the instruction: InstructBLIP (arXiv:2305.06500), X-InstructBLIP (arXiv:2311.18799).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, cast

import torch
from torch import Tensor, nn

from omniloom.errors import ConfigError, did_you_mean
from omniloom.layers import Adapters, Block, pad_rows, sinusoids
from omniloom.projectors.adapters import KINDS, BlockAdapters
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.own import Own
from omniloom.projectors.spoken import spoken
from omniloom.projectors.width import require_width
from omniloom.sequence import Packed, Shape

__all__ = ["QFormer"]


class QFormer(Projector):
    """(S, in_dim) rows of any lengths to (items * queries, out_dim).

    Args:
        queries: rows an item becomes.
        width: of the queries and blocks, a multiple of `heads`.
        depth: blocks. The first block cross-attends, then every `cross_every`-th.
        own_queries: each modality that shares the part has queries and an input norm of its own, at `own.NAME`.
        instruction: "llm" lets the tokens of the item's instruction, as the language model embeds them, take part in
            the self-attention of the queries: what is read depends on what is asked. An empty one is no tokens.
        adapters: "lora" or "path" give each modality adapters of its own at the linear maps, at `own.NAME.adapters`;
            see `omniloom.projectors.adapters`. The order of "path" is that of the table of modalities.
        rank: numbers an adapter passes through. CREMA: 64; PathWeave: 8.
    Raises:
        ConfigError: a count below one, an unknown choice, or a width that the heads, or 2 for an instruction, do not
            divide.
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
        own_queries: bool = False,
        instruction: Literal["none", "llm"] = "none",
        adapters: Literal["none", "lora", "path"] = "none",
        rank: int = 8,
    ) -> None:
        super().__init__()
        if min(queries, width, depth, heads, cross_every, rank) < 1:
            raise ConfigError("QFormer needs queries, width, depth, heads, cross_every and rank of at least one.")
        if instruction not in ("none", "llm"):
            raise ConfigError(f"unknown instruction {instruction!r} of QFormer; expected 'none' or 'llm'.")
        if instruction == "llm" and width % 2:
            raise ConfigError(f"QFormer got width={width}; positions of an instruction's tokens need an even one.")
        if adapters not in KINDS:
            raise ConfigError(f"unknown adapters {adapters!r} of QFormer.{did_you_mean(adapters, KINDS)}")
        self.in_dim, self.out_dim = in_dim, out_dim
        self.queries, self.width, self.depth, self.heads, self.cross_every = queries, width, depth, heads, cross_every
        self.own_queries, self.instruction, self.adapters, self.rank = own_queries, instruction, adapters, rank
        if not own_queries:
            self.query = new_queries(queries, width)
            self.memory_norm = nn.LayerNorm(in_dim)
        self.memory_map = nn.Linear(in_dim, width)
        self.blocks = nn.ModuleList(
            Block(width, heads, memory_width=None if index % cross_every else width) for index in range(depth)
        )
        if instruction == "llm":
            self.instruction_norm = nn.LayerNorm(out_dim)
            self.instruction_map = nn.Linear(out_dim, width)
            # Behind the last block nobody reads the instruction, so it has no feed-forward there.
            self.instruction_feeds = nn.ModuleList(_feed(width) for _ in range(depth - 1))
        self.norm = nn.LayerNorm(width)
        self.map = nn.Linear(width, out_dim)
        self.own = Own()

    def serve(self, modality: str) -> None:
        """Queries and adapters of the modality's own, where the options ask for them."""
        if self.own_queries or self.adapters != "none":
            self.own.claim(modality, lambda: _Branch(self))

    def forward(self, packed: Packed, context: Context) -> Packed:
        """Queries of every item, in order; an item sees its own rows and its own instruction only.

        Raises:
            ConfigError: a modality that was not served, or an instruction wanted and no language model to say it.
            ShapeError: not one instruction an item, or embeddings of another width than `out_dim`.
        """
        require_width(self, packed)
        has_own = self.own_queries or self.adapters != "none"
        branch = cast("_Branch", self.own.of(context.modality, self)) if has_own else None
        home = branch if self.own_queries and branch is not None else self
        padded, mask = packed.padded()
        memory = self.memory_map(home.memory_norm(padded.to(self.map.weight)))
        x = home.query.expand(len(packed), -1, -1)
        told, is_told = self._instructions(packed, context)
        for index, block in enumerate(cast("Iterable[Block]", self.blocks)):
            adapters = None if branch is None else branch.beside(index, self.own)
            rows = torch.cat([x, told], 1) if told is not None else x
            rows = block.attend(rows, is_told, adapters=adapters)
            x = block.feed(block.read(rows[:, : self.queries], memory, mask, adapters=adapters))
            if told is not None and index + 1 < self.depth:
                told = rows[:, self.queries :]
                told = told + self.instruction_feeds[index](told)
        return Packed(self.map(self.norm(x)).flatten(0, 1), tuple(self.out_shape(shape) for shape in packed.shapes))

    def out_shape(self, shape: Shape) -> Shape:
        """`queries` rows without place or time: every query sees the whole item."""
        return Shape(self.queries)

    def _instructions(self, packed: Packed, context: Context) -> tuple[Tensor | None, Tensor | None]:
        """(items, N, width) tokens of each item's instruction, and the mask of real rows of [queries; tokens]."""
        if self.instruction == "none":
            return None, None
        weight = self.map.weight
        tokens = spoken(self, context, len(packed), self.out_dim, weight)
        padded, lengths = pad_rows(tokens)
        steps = torch.arange(padded.shape[1], device=weight.device)
        told = self.instruction_map(self.instruction_norm(padded)) + sinusoids(steps, self.width).to(weight)
        is_real = steps < lengths[:, None]
        return told, torch.cat([is_real.new_ones(len(packed), self.queries), is_real], 1)


class _Branch(nn.Module):
    """What a modality has of its own in a shared Q-Former."""

    def __init__(self, part: QFormer) -> None:
        super().__init__()
        if part.own_queries:
            self.query = new_queries(part.queries, part.width)
            self.memory_norm = nn.LayerNorm(part.in_dim)
        # Those served before this one: the path goes through their adapters.
        earlier = tuple(part.own)
        self.adapters = nn.ModuleList(
            BlockAdapters(part.adapters, cast("Block", block), part.rank, earlier) for block in part.blocks
        )

    def beside(self, index: int, own: Own) -> Adapters:
        """What block `index` is to add at its linear maps."""
        others = {name: cast("_Branch", branch).adapters[index] for name, branch in own.items()}
        return cast("BlockAdapters", self.adapters[index]).beside(cast("dict[str, BlockAdapters]", others))


def new_queries(count: int, width: int) -> nn.Parameter:
    """(count, width) queries that differ from the start: else all read the same mixture and stay equal for long."""
    return nn.Parameter(torch.randn(count, width))


def _feed(width: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
