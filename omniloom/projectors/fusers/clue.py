"""Clues to the question: what is asked reads every modality, every modality reads what was found, and few rows stay.

For each input, with its rows r and the tokens t of the turn's instruction:

    ground = tanh(attend(t, r))        clues = r + tanh(attend(r, ground))        queries read the clues

Source: the clue aggregator of CAT (arXiv:2403.04640); there 32 queries of a Q-Former of four layers for
each modality, in front of the pooled rows of both. Here the clues are added to the rows, so that a turn without words
still has something to read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from omniloom.errors import ConfigError
from omniloom.layers import Attention, Block, pad_rows
from omniloom.projectors.base import Context
from omniloom.projectors.fusers.inputs import require_groups, require_inputs
from omniloom.projectors.fusing import Fuser, Group
from omniloom.projectors.own import Own
from omniloom.projectors.spoken import spoken
from omniloom.sequence import Packed, Shape

__all__ = ["Clue"]


class Clue(Fuser):
    """Groups to `queries` rows of every input that is there, in the fuser's order, at the language model's width.

    Set `keep` to all inputs where their own rows shall stand beside the clues, as CAT's pooled ones do.

    Args:
        queries: rows an input becomes.
        width: of attention and blocks, a multiple of `heads`.
        depth: blocks that the queries read the clues with.
    Raises:
        ConfigError: a count below one, or a width that the heads do not divide.
    """

    def __init__(
        self,
        in_dims: Mapping[str, int],
        out_dim: int,
        *,
        queries: int = 8,
        width: int = 256,
        heads: int = 4,
        depth: int = 2,
    ) -> None:
        super().__init__()
        require_inputs(self, in_dims, 1)
        if min(queries, width, heads, depth) < 1:
            raise ConfigError("Clue needs queries, a width, heads and a depth of at least one.")
        self.in_dims, self.out_dim = in_dims, out_dim
        self.queries, self.width, self.heads, self.depth = queries, width, heads, depth
        self.text_norm, self.text_map = nn.LayerNorm(out_dim), nn.Linear(out_dim, width)
        # Asked beside every question, and alone where nothing is asked.
        self.anything = nn.Parameter(torch.randn(width))
        self.own = Own()
        for name, in_dim in in_dims.items():
            self.own.claim(name, partial(_Finder, self, in_dim))

    def forward(self, groups: Sequence[Group], context: Context) -> Packed:
        """Clues of every group, in order; a group sees its own rows and its own instruction only.

        Raises:
            ConfigError: no language model to say the instructions.
            ShapeError: not one instruction a group.
        """
        require_groups(self, groups)
        weight = self.text_map.weight
        texts = [
            torch.cat([self.anything[None], self.text_map(self.text_norm(tokens))])
            for tokens in spoken(self, context, len(groups), self.out_dim, weight)
        ]
        found: list[list[Tensor]] = [[] for _ in groups]
        for name in self.in_dims:
            there = [number for number, group in enumerate(groups) if name in group]
            if there:
                rows = [groups[number][name].x.to(weight) for number in there]
                clues = self.own[name](rows, [texts[number] for number in there])
                for number, clue in zip(there, clues, strict=True):
                    found[number].append(clue)
        return Packed.of([torch.cat(clues) for clues in found])

    def out_shape(self, shapes: Mapping[str, Shape]) -> Shape:
        """`queries` rows for each input that is there, without place or time."""
        return Shape(self.queries * len(shapes))


class _Finder(nn.Module):
    """What finds clues in the rows of one input."""

    def __init__(self, fuser: Clue, in_dim: int) -> None:
        super().__init__()
        width, heads = fuser.width, fuser.heads
        self.norm, self.map = nn.LayerNorm(in_dim), nn.Linear(in_dim, width)
        self.ask, self.answer = Attention(width, heads, memory_width=width), Attention(width, heads, memory_width=width)
        self.clue_norm = nn.LayerNorm(width)
        self.query = nn.Parameter(torch.randn(fuser.queries, width))
        self.blocks = nn.ModuleList(Block(width, heads, memory_width=width) for _ in range(fuser.depth))
        self.out_norm, self.out = nn.LayerNorm(width), nn.Linear(width, fuser.out_dim)

    def forward(self, rows: Sequence[Tensor], texts: Sequence[Tensor]) -> Tensor:
        """(M_i, in_dim) rows and (T_i, width) tokens of every item -> (items, queries, out_dim)."""
        x, row_mask = _padded(rows)
        text, text_mask = _padded(texts)
        x = self.map(self.norm(x))
        ground = self.ask(text, x, row_mask).tanh()
        clues = self.clue_norm(x + self.answer(x, ground, text_mask).tanh())
        found = self.query.expand(len(x), -1, -1)
        for block in self.blocks:
            found = block(found, memory=clues, memory_mask=row_mask)
        result: Tensor = self.out(self.out_norm(found))
        return result


def _padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    padded, lengths = pad_rows(rows)
    return padded, torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
