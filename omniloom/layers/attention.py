"""The transformer block that encoders, projectors and generators share.

Pre-norm (arXiv:2002.04745): it trains from scratch without a long warm-up. Keys have no bias: a bias on keys shifts
all scores of a query alike, which the softmax ignores, so its gradient is exactly zero.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from omniloom.errors import ConfigError

__all__ = ["Attention", "Block"]


class Attention(nn.Module):
    """Multi-head attention of (B, L, width) over itself, or over (B, M, memory_width) rows of a memory.

    Raises:
        ConfigError: `width` is not a multiple of `heads`.
    """

    def __init__(self, width: int, heads: int, *, memory_width: int | None = None) -> None:
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
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, memory: Tensor | None = None, key_mask: Tensor | None = None) -> Tensor:
        """`key_mask`: (B, M) bool, True where a key is real; None means all are. Each item needs one real key."""
        source = x if memory is None else memory
        query, key, value = self._split(self.query(x)), self._split(self.key(source)), self._split(self.value(source))
        mask = None if key_mask is None else key_mask[:, None, None, :]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, rows: Tensor) -> Tensor:
        return rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Self-attention, optionally cross-attention to a memory, and an MLP; each behind a norm and added to its input.

    `memory_width` None means: no cross-attention.
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
        x = x + self.attention(self.attention_norm(x), key_mask=key_mask)
        if self.has_cross:
            x = x + self.cross(self.cross_norm(x), memory, memory_mask)
        return x + self.mlp(self.mlp_norm(x))
