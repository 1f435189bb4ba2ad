"""A few parameters of a modality's own beside the linear maps of a shared trunk.

Two kinds. `lora`: a low-rank map for each modality at queries and values of self-attention, as CREMA
(arXiv:2402.05889) adds modalities to one Q-Former. `path`: the adapter-in-adapter of PathWeave (arXiv:2410.20178) at
queries, keys and values of both attentions: a modality also passes through the adapters of those before it, with a
small map of its own inside each. Either way, what a modality added later trains lies outside of what the earlier ones
compute: their rows stay bit-equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniloom.errors import ConfigError, did_you_mean
from omniloom.layers import Adapters, Attention, Block

__all__ = ["KINDS", "BlockAdapters", "LowRank", "PathAdapter"]

KINDS: dict[str, tuple[str, ...]] = {
    "none": (),
    "lora": ("attention.query", "attention.value"),
    "path": tuple(f"{layer}.{name}" for layer in ("attention", "cross") for name in ("query", "key", "value")),
}
"""Kind of adapter -> the linear maps of a block that it stands at."""

_LEAST_NOISE = 1e-2  # PathWeave's own: noise never trains itself away altogether


class LowRank(nn.Module):
    """x -> up(down(x)), through `rank` numbers. `up` starts at zero: a new adapter changes nothing."""

    def __init__(self, in_dim: int, out_dim: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(in_dim, rank, bias=False)
        self.up = nn.Linear(rank, out_dim, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_dim) to (..., out_dim)."""
        rows: Tensor = self.up(self.down(x))
        return rows


class PathAdapter(LowRank):
    """sum_i g_i up_i(inner_i(down_i x)) over the modalities up to this one; `down_i` and `up_i` are theirs.

    `inner` holds a (rank, rank) map for each earlier modality, the identity at first. The gates are a softmax over
    linear scores of each row, equal at first; in training mode they get noise of a learned size. The first modality has
    neither.
    """

    def __init__(self, in_dim: int, out_dim: int, rank: int, earlier: Sequence[str]) -> None:
        super().__init__(in_dim, out_dim, rank)
        self.inner = nn.ModuleDict({name: _identity(rank) for name in earlier})
        self.gate = _silent(in_dim, len(earlier) + 1) if earlier else None
        self.noise = _silent(in_dim, len(earlier) + 1) if earlier else None

    def weave(self, x: Tensor, others: Mapping[str, PathAdapter]) -> Tensor:
        """(..., in_dim) to (..., out_dim); `others` are the adapters of earlier modalities at the same place."""
        alone: Tensor = self(x)
        if self.gate is None or self.noise is None:
            return alone
        scores = self.gate(x)
        if self.training:
            scores = scores + torch.randn_like(scores) * (F.softplus(self.noise(x)) + _LEAST_NOISE)
        paths = [others[name].up(inner(others[name].down(x))) for name, inner in self.inner.items()]
        return (torch.stack([*paths, alone], -1) * scores.softmax(-1)[..., None, :]).sum(-1)


class BlockAdapters(nn.ModuleDict):
    """A modality's adapters at the linear maps of one block, by their names with an underscore for the dot.

    Raises:
        ConfigError: an unknown kind.
    """

    def __init__(self, kind: str, block: Block, rank: int, earlier: Sequence[str]) -> None:
        if kind not in KINDS:
            raise ConfigError(f"unknown adapters {kind!r}.{did_you_mean(kind, KINDS)}")
        made: dict[str, nn.Module] = {}
        for name in KINDS[kind]:
            layer, _, linear = name.partition(".")
            attention = getattr(block, layer, None)
            if isinstance(attention, Attention):
                beside: nn.Linear = getattr(attention, linear)
                sizes = (beside.in_features, beside.out_features, rank)
                made[f"{layer}_{linear}"] = PathAdapter(*sizes, earlier) if kind == "path" else LowRank(*sizes)
        super().__init__(made)

    def beside(self, others: Mapping[str, BlockAdapters]) -> Adapters:
        """What the block is to add at its linear maps; `others`: adapters of the same block of all modalities."""
        calls: dict[str, Callable[[Tensor], Tensor]] = {}
        for name, adapter in self.items():
            calls[name.replace("_", ".")] = adapter
            if isinstance(adapter, PathAdapter):
                earlier = {other: cast("PathAdapter", others[other][name]) for other in adapter.inner}
                calls[name.replace("_", ".")] = partial(adapter.weave, others=earlier)
        return calls


def _identity(width: int) -> nn.Linear:
    linear = nn.Linear(width, width, bias=False)
    nn.init.eye_(linear.weight)
    return linear


def _silent(in_dim: int, out_dim: int) -> nn.Linear:
    linear = nn.Linear(in_dim, out_dim, bias=False)
    nn.init.zeros_(linear.weight)
    return linear
