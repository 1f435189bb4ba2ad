"""Modalities of one recording drawn together, those of different ones apart: a loss, and no rows.

Source: OmniAlignNet of OmniVinci (arXiv:2510.15870): one query a modality reads its rows, three layers of
self-attention, length one, and the symmetric contrastive loss of CLIP (arXiv:2103.00020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniloom.errors import ConfigError
from omniloom.layers import Attention, pad_rows
from omniloom.projectors.base import Context
from omniloom.projectors.fusers.inputs import require_groups, require_inputs
from omniloom.projectors.fusing import Fuser, Group
from omniloom.projectors.own import Own
from omniloom.sequence import Auxiliary, Packed, Shape

__all__ = ["Align"]


class Align(Fuser):
    """Adds the loss "contrast" over the groups of a batch, for every two inputs; the inputs keep their own slots.

    Groups of a batch are each other's counter-examples, so a batch needs two that hold both inputs. Without a label of
    its own the loss is small where items of the same turn are nearest to one another.

    Args:
        width: of the shared space, a multiple of `heads`.
        layers: behind the query.
        temperature: where it begins; it is learned, and stays above 0.01.
        weight: of the loss.
    Raises:
        ConfigError: fewer than two inputs, a count below one, a temperature outside 0.01 to 1, a weight that is not
            above zero, or a width that the heads do not divide.
    """

    def __init__(
        self,
        in_dims: Mapping[str, int],
        out_dim: int,
        *,
        width: int = 256,
        heads: int = 4,
        layers: int = 3,
        temperature: float = 0.07,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        require_inputs(self, in_dims, 2)
        if min(width, heads) < 1 or layers < 0 or not 0.01 <= temperature <= 1 or not weight > 0:
            raise ConfigError(
                "Align needs width and heads of at least one, no negative number of layers, a temperature from 0.01 to "
                f"1 and a weight above zero; got {width}, {heads}, {layers}, {temperature} and {weight}."
            )
        self.in_dims, self.out_dim = in_dims, out_dim
        self.width, self.heads, self.layers = width, heads, layers
        self.temperature, self.weight = temperature, weight
        self.own = Own()
        for name, in_dim in in_dims.items():
            self.own.claim(name, partial(_Reader, in_dim, width, heads))
        self.shared = nn.ModuleList(_Single(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.log_scale = nn.Parameter(torch.tensor(-log(temperature)))

    def forward(self, groups: Sequence[Group], context: Context) -> Packed:
        """No rows, and the loss."""
        require_groups(self, groups)
        total, count = self.log_scale.new_zeros(()), 0
        scale = self.log_scale.clamp(max=log(100.0)).exp()
        for first, second in combinations(self.in_dims, 2):
            both = [group for group in groups if first in group and second in group]
            if len(both) < 2:
                continue  # one pair alone has nothing to be told from
            ours, theirs = (self._vectors(name, [group[name].x for group in both]) for name in (first, second))
            scores = scale * ours @ theirs.T
            right = torch.arange(len(both), device=scores.device)
            pairs = [F.cross_entropy(side.float(), right, reduction="sum") for side in (scores, scores.T)]
            total, count = total + (pairs[0] + pairs[1]) / 2, count + len(both)
        loss = Auxiliary(total, torch.tensor(float(count), device=total.device), self.weight, is_coupled=True)
        return Packed(self.log_scale.new_zeros(0, self.out_dim), (), losses={"contrast": loss})

    def out_shape(self, shapes: Mapping[str, Shape]) -> None:
        """No rows of its own."""
        return

    def _vectors(self, name: str, rows: Sequence[Tensor]) -> Tensor:
        """(items, width) of length one."""
        padded, lengths = pad_rows([part.to(self.log_scale) for part in rows])
        mask = torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
        x = self.own[name](padded, mask)
        for layer in self.shared:
            x = layer(x)
        return F.normalize(self.norm(x), dim=-1)


class _Reader(nn.Module):
    """A modality's query, which reads its rows."""

    def __init__(self, in_dim: int, width: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(width))
        self.norm = nn.LayerNorm(in_dim)
        self.cross = Attention(width, heads, memory_width=in_dim)

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        query = self.query.expand(len(rows), 1, -1)
        read: Tensor = query + self.cross(query, self.norm(rows), mask)
        return read[:, 0]


class _Single(nn.Module):
    """A transformer block of a single row: attention to itself alone weighs it by one, so what acts is its value."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.value_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.out(self.value(self.value_norm(x)))
        mixed: Tensor = x + self.mlp(self.mlp_norm(x))
        return mixed
