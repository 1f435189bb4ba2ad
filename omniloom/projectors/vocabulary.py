"""Rows said in the language model's own words: attention with its embedding table as keys and values.

Whatever comes out is a mixture of (linearly mapped) token embeddings, so media lie where text lies from the first step.
Source: Macaw-LLM (arXiv:2306.09093), section 3.2.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from omniloom.errors import ConfigError, ShapeError
from omniloom.layers import Attention
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.width import require_width
from omniloom.sequence import Packed, Shape

__all__ = ["VocabularyAttention"]

_SCORES = 2**25  # scores held at once: 128 MiB in float32


class VocabularyAttention(Projector):
    """(S, in_dim) to (S, out_dim): a linear map, then one multi-head attention to all V token embeddings.

    The table is never mapped to keys and values, which would cost two more tables of memory; each head's map is moved
    to the query's side and to the mixture's, which gives the same numbers. Rows are taken in turns of as many as keep
    the scores within 128 MiB; in training their scores are computed again on the way back.

    Args:
        heads: of the attention; they divide out_dim.
    Raises:
        ConfigError: heads that do not divide out_dim.
    """

    def __init__(self, in_dim: int, out_dim: int, *, heads: int = 4) -> None:
        super().__init__()
        self.in_dim, self.out_dim, self.heads = in_dim, out_dim, heads
        self.map = nn.Linear(in_dim, out_dim)
        self.attention = Attention(out_dim, heads)

    def forward(self, packed: Packed, context: Context) -> Packed:
        """Each row mapped alone; shapes stay.

        Raises:
            ConfigError: no embedding table in the context.
            ShapeError: a table of another width than `out_dim`.
        """
        require_width(self, packed)
        table = context.embedding
        if table is None:
            raise ConfigError(
                "VocabularyAttention needs the language model's embedding table, the context has none. "
                "Call it with Context(embedding=...); a composed model does."
            )
        if table.dim() != 2 or table.shape[1] != self.out_dim:
            raise ShapeError(
                f"VocabularyAttention got an embedding table of {tuple(table.shape)}; expected (V, {self.out_dim}). "
                "Build it with the language model's width, as the last part that changes widths."
            )
        rows = self.map(packed.x.to(self.map.weight))
        # (heads, head width, out_dim): what a head takes of an embedding.
        key, value = (
            layer.weight.unflatten(0, (self.heads, -1)) for layer in (self.attention.key, self.attention.value)
        )
        query = self.attention.query(rows).unflatten(1, (self.heads, -1))
        asked = torch.einsum("shc,hcd->shd", query, key) / sqrt(key.shape[1])
        mixed = self._mixtures(asked.flatten(0, 1), table.to(asked)).view_as(asked)
        heard = torch.einsum("shd,hcd->shc", mixed, value).flatten(1) + self.attention.value.bias
        return Packed(self.attention.out(heard), packed.shapes)

    def out_shape(self, shape: Shape) -> Shape:
        """As many rows as came, where they were."""
        return shape

    def _mixtures(self, asked: Tensor, table: Tensor) -> Tensor:
        """(N, out_dim) queries to the (N, out_dim) mixtures of the table's rows that they attend to."""
        turns = asked.split(max(1, _SCORES // table.shape[0]))
        if len(turns) == 1 or not torch.is_grad_enabled():
            return torch.cat([_mixture(turn, table) for turn in turns])
        return torch.cat(
            [checkpoint(_mixture, turn, table, use_reentrant=False, preserve_rng_state=False) for turn in turns]
        )


def _mixture(asked: Tensor, table: Tensor) -> Tensor:
    return torch.softmax(asked @ table.T, -1) @ table
