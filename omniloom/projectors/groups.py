"""Rows gathered into groups: learned group tokens read an item, and every row goes to the group it fits best.

An item of any length becomes a few rows, each the mean of what belongs together. Source: GroupViT (arXiv:2202.11094),
as the input projector of NExT-GPT (arXiv:2309.05519), second release: 512 wide, 64 groups, then 8, with
6, 3 and 3 blocks of 8 heads. Training adds no Gumbel noise to the assignment here, so rows depend on the item alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniloom.errors import ConfigError
from omniloom.layers import Attention, Block
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.width import require_width
from omniloom.sequence import Packed, Shape

__all__ = ["Groups"]


class Groups(Projector):
    """(S, in_dim) rows of any lengths to (items * groups[-1], out_dim).

    Args:
        groups: rows that an item becomes, stage after stage; NExT-GPT: 64, 8.
        depths: transformer blocks before each grouping, and behind the last; one more than groups.
        width: of the blocks, a multiple of `heads`.
        hard: each row goes to one group, with the gradient of the soft choice; False: to all, by its softmax.
    Raises:
        ConfigError: depths do not fit groups, a count below one, or a width that the heads do not divide.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        groups: Sequence[int] = (16, 8),
        depths: Sequence[int] = (2, 1, 1),
        width: int = 256,
        heads: int = 4,
        hard: bool = True,
    ) -> None:
        super().__init__()
        if len(depths) != len(groups) + 1 or not groups or min(*groups, width) < 1 or min(depths) < 0:
            raise ConfigError(
                f"Groups got groups={list(groups)}, depths={list(depths)}, width={width}; expected counts of at least "
                "one, and one depth more than groups."
            )
        self.in_dim, self.out_dim = in_dim, out_dim
        self.groups, self.depths, self.width, self.heads, self.hard = groups, depths, width, heads, hard
        self.first = nn.Linear(in_dim, width)
        before = (None, *groups)
        self.stages = nn.ModuleList(
            _Stage(depth, width, heads, count, before[index], hard)
            for index, (depth, count) in enumerate(zip(depths, groups, strict=False))
        )
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depths[-1]))
        self.norm = nn.LayerNorm(width)
        self.map = nn.Linear(width, out_dim)

    def forward(self, packed: Packed, context: Context) -> Packed:
        """The groups of every item, in order; an item sees its own rows only."""
        require_width(self, packed)
        padded, mask = packed.padded()
        x, tokens = self.first(padded.to(self.first.weight)), None
        for stage in self.stages:
            x, tokens = stage(x, mask, tokens)
            mask = mask.new_ones(x.shape[:2])
        for block in self.blocks:
            x = block(x)
        return Packed(self.map(self.norm(x)).flatten(0, 1), tuple(self.out_shape(shape) for shape in packed.shapes))

    def out_shape(self, shape: Shape) -> Shape:
        """`groups[-1]` rows without place or time: rows of a group lie anywhere."""
        return Shape(self.groups[-1])


class _Stage(nn.Module):
    """Blocks over rows and group tokens together, then as many rows as there are tokens."""

    def __init__(self, depth: int, width: int, heads: int, count: int, before: int | None, hard: bool) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(count, width))
        # Tokens must differ from the start, or all rows find all groups equal.
        nn.init.trunc_normal_(self.tokens, std=0.02)
        self.before = None
        if before is not None:
            self.before = nn.ModuleList([nn.LayerNorm(width), _mlp(before, width // 2, count)])
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.grouping = _Grouping(width, heads, count, hard)

    def forward(self, x: Tensor, mask: Tensor, tokens: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, L, width) rows, real where mask, and the tokens of the stage before -> (B, count, width) twice."""
        groups = self.tokens.expand(x.shape[0], -1, -1)
        if self.before is not None and tokens is not None:
            norm, mix = self.before
            groups = groups + mix(norm(tokens).transpose(1, 2)).transpose(1, 2)
        both = torch.cat([x, groups], 1)
        key_mask = torch.cat([mask, mask.new_ones(groups.shape[:2])], 1)
        for block in self.blocks:
            both = block(both, key_mask)
        x, groups = both.split([x.shape[1], groups.shape[1]], 1)
        return self.grouping(x, groups, mask), groups


class _Grouping(nn.Module):
    """Group tokens look at the rows, rows choose a group, and a group is the mean of its rows beside its token."""

    def __init__(self, width: int, heads: int, count: int, hard: bool) -> None:
        super().__init__()
        self.hard, self.scale = hard, width**-0.5
        self.token_norm, self.row_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.mix_norm = _mlp(count, width // 2, count), nn.LayerNorm(width)
        self.look, self.look_norm = Attention(width, heads), nn.LayerNorm(width)
        self.look_mlp, self.look_out = _mlp(width, 4 * width, width), nn.LayerNorm(width)
        # No bias of the groups' scores: the same for all groups, it would cancel in the softmax over them.
        self.query = nn.Linear(width, width, bias=False)
        self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(3))
        self.norm, self.mlp = nn.LayerNorm(width), _mlp(width, 4 * width, width)

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, L, width) rows, (B, count, width) tokens and (B, L) real rows -> (B, count, width)."""
        x = self.row_norm(x)
        groups = self.mix_norm(self.mix(self.token_norm(tokens).transpose(1, 2)).transpose(1, 2))
        groups = groups + self.look(groups, x, mask)
        groups = self.look_out(groups + self.look_mlp(self.look_norm(groups)))
        chosen = self._assigned(self.query(groups) @ self.key(x).transpose(1, 2) * self.scale) * mask[:, None]
        # One row more in the count than there is: a group without rows stays near its token.
        means = chosen / (chosen.sum(-1, keepdim=True) + 1.0) @ self.value(x)
        groups = self.out(means) + groups
        return groups + self.mlp(self.norm(groups))

    def _assigned(self, scores: Tensor) -> Tensor:
        """(B, count, L) scores to weights that sum to one over the groups."""
        soft = scores.softmax(1)
        if not self.hard:
            return soft
        best = F.one_hot(soft.argmax(1), soft.shape[1]).transpose(1, 2).to(soft)
        return best - soft.detach() + soft


def _mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, max(1, hidden)), nn.GELU(), nn.Linear(max(1, hidden), out))
