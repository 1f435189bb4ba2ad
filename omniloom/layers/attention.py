"""The transformer block that encoders, projectors and generators share.

Pre-norm (arXiv:2002.04745): it trains from scratch without a long warm-up. Keys have no bias: a bias on keys shifts
all scores of a query alike, which the softmax ignores, so its gradient is exactly zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniloom.errors import ConfigError

__all__ = ["Adapters", "Attention", "Block"]

Adapters = Mapping[str, Callable[[Tensor], Tensor]]
"""What is added to the linear maps of a layer, by their names: {"attention.query": map} gets the same rows as they."""


class Attention(nn.Module):
    """Multi-head attention of (B, L, width) over itself, or over (B, M, memory_width) rows of a memory.

    `is_cosine`: scores are the cosines of queries and keys times a learned factor a head, which starts at 10 and stays
    under 100; they cannot grow without bound, however large the rows are (arXiv:2111.09883; in the resampler of
    Unified-IO 2, arXiv:2312.17172).

    Raises:
        ConfigError: `width` is not a multiple of `heads`.
    """

    def __init__(self, width: int, heads: int, *, memory_width: int | None = None, is_cosine: bool = False) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ConfigError(
                f"width {width} cannot be cut into {heads} heads. Take a width that is a multiple of `heads`."
            )
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(memory_width or width, width, bias=False)
        self.value = nn.Linear(memory_width or width, width)
        self.out = nn.Linear(width, width)
        self.log_scale = nn.Parameter(torch.full((heads, 1, 1), log(10.0))) if is_cosine else None
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        key_mask: Tensor | None = None,
        *,
        key_positions: Tensor | None = None,
        adapters: Adapters | None = None,
    ) -> Tensor:
        """(B, L, width) to the same.

        `key_mask`: bool, True where a key is real; (B, M), or (B, L, M) where that depends on the query. None means
        all are. Each query needs one real key. `key_positions`: added to the rows that keys are made of, not to those
        of values. `adapters`: by "query", "key", "value" and "out".
        """
        source = x if memory is None else memory
        keyed = source if key_positions is None else source + key_positions
        query = self._split(_adapted(self.query, "query", x, adapters))
        key = self._split(_adapted(self.key, "key", keyed, adapters))
        value = self._split(_adapted(self.value, "value", source, adapters))
        scale = None
        if self.log_scale is not None:
            query = F.normalize(query, dim=-1) * self.log_scale.clamp(max=log(100.0)).exp()
            key, scale = F.normalize(key, dim=-1), 1.0
        mask = None if key_mask is None else key_mask[:, None] if key_mask.dim() == 3 else key_mask[:, None, None, :]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
        return _adapted(self.out, "out", mixed.transpose(1, 2).flatten(2), adapters)

    def _split(self, rows: Tensor) -> Tensor:
        return rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Self-attention, optionally cross-attention to a memory, and an MLP; each behind a norm and added to its input.

    `memory_width` None means: no cross-attention. The three steps can be taken one by one where other rows take part
    in each: `attend`, `read`, `feed`.
    """

    def __init__(self, width: int, heads: int, *, mlp_ratio: float = 4.0, memory_width: int | None = None) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        if memory_width is not None:
            self.cross_norm = nn.LayerNorm(width)
            self.cross = Attention(width, heads, memory_width=memory_width)
        self.has_cross = memory_width is not None
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(
        self,
        x: Tensor,
        key_mask: Tensor | None = None,
        *,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        """(B, L, width) to the same; `key_mask` (B, L) and `memory_mask` (B, M) are True where a row is real."""
        return self.feed(self.read(self.attend(x, key_mask), memory, memory_mask))

    def attend(self, x: Tensor, key_mask: Tensor | None = None, *, adapters: Adapters | None = None) -> Tensor:
        """Self-attention; `adapters` by "attention.query" and so on."""
        rows = self.attention_norm(x)
        return x + self.attention(rows, key_mask=key_mask, adapters=_within("attention.", adapters))

    def read(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        *,
        adapters: Adapters | None = None,
    ) -> Tensor:
        """Cross-attention to the memory, nothing in a block without; `adapters` by "cross.query" and so on."""
        if not self.has_cross:
            return x
        return x + self.cross(self.cross_norm(x), memory, memory_mask, adapters=_within("cross.", adapters))

    def feed(self, x: Tensor) -> Tensor:
        """The MLP."""
        return x + self.mlp(self.mlp_norm(x))


def _adapted(linear: nn.Linear, name: str, rows: Tensor, adapters: Adapters | None) -> Tensor:
    mapped: Tensor = linear(rows)
    return mapped + adapters[name](rows) if adapters is not None and name in adapters else mapped


def _within(prefix: str, adapters: Adapters | None) -> Adapters | None:
    if adapters is None:
        return None
    return {name.removeprefix(prefix): map for name, map in adapters.items() if name.startswith(prefix)}
