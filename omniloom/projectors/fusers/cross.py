"""One modality reads the others: its rows attend to theirs, and stay where they are.

Source: cross-attention from pictures to sound in Meerkat (arXiv:2407.01851)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from omniloom.errors import ConfigError
from omniloom.layers import Attention, pad_rows
from omniloom.projectors.base import Context
from omniloom.projectors.fusers.inputs import first_of, require_groups, require_inputs
from omniloom.projectors.fusing import Fuser, Group
from omniloom.projectors.own import Own
from omniloom.sequence import Packed, Shape

__all__ = ["Cross"]


class Cross(Fuser):
    """Rows of the first input, with what they read of the others added; their number, place and width stay.

    Where none of the others is there, the first is what it was.

    Args:
        width: of the attention, a multiple of `heads`.
        depth: layers of attention and MLP.
    Raises:
        ConfigError: fewer than two inputs, a count below one, or a width that the heads do not divide.
    """

    def __init__(
        self, in_dims: Mapping[str, int], out_dim: int, *, width: int = 256, heads: int = 4, depth: int = 1
    ) -> None:
        super().__init__()
        require_inputs(self, in_dims, 2)
        if min(width, heads, depth) < 1:
            raise ConfigError("Cross needs a width, heads and a depth of at least one.")
        first, *others = in_dims
        self.in_dims, self.out_dim = in_dims, in_dims[first]
        self.width, self.heads, self.depth = width, heads, depth
        self.input_norm, self.input_map = nn.LayerNorm(in_dims[first]), nn.Linear(in_dims[first], width)
        self.own = Own()
        for name in others:
            self.own.claim(name, partial(_entry, in_dims[name], width))
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(depth))
        self.norm, self.map = nn.LayerNorm(width), nn.Linear(width, self.out_dim)

    def forward(self, groups: Sequence[Group], context: Context) -> Packed:
        """Rows of the first input of every group, in order; a group sees its own rows only.

        Raises:
            ShapeError: a group without the first input.
        """
        require_groups(self, groups)
        main = first_of(self, self.in_dims)
        rows = [group[first_of(self, group)].x.to(self.map.weight) for group in groups]
        shapes = [group[main].shapes[0] for group in groups]
        joined = [number for number, group in enumerate(groups) if len(group) > 1]
        if joined:
            x, _ = pad_rows([rows[number] for number in joined])
            memory, lengths = pad_rows([self._memory(groups[number]) for number in joined])
            mask = torch.arange(memory.shape[1], device=memory.device) < lengths[:, None]
            x = self.input_map(self.input_norm(x))
            for layer in self.layers:
                x = layer(x, memory, mask)
            read = self.map(self.norm(x))
            for place, number in enumerate(joined):
                rows[number] = rows[number] + read[place, : len(rows[number])]
        return Packed.of(rows, shapes)

    def out_shape(self, shapes: Mapping[str, Shape]) -> Shape:
        """The shape of the first input.

        Raises:
            ShapeError: as `forward`.
        """
        return shapes[first_of(self, shapes)]

    def _memory(self, group: Group) -> Tensor:
        """(M, width) rows of all the others."""
        return torch.cat([self.own[name](group[name].x.to(self.map.weight)) for name in self.own if name in group])


def _entry(in_dim: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(in_dim), nn.Linear(in_dim, width))


class _Layer(nn.Module):
    """Attention to a memory and an MLP, each behind a norm and added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.cross_norm, self.cross = nn.LayerNorm(width), Attention(width, heads, memory_width=width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        x = x + self.cross(self.cross_norm(x), memory, mask)
        return x + self.mlp(self.mlp_norm(x))
