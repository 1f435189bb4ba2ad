"""Gated cross-attention in front of layers: slots read the rows of media with queries of their own.

    h + gate(attend(norm(h), rows)) [, then h + tanh(b) * ffn(norm(h))]

Gates begin at zero, or what they gate does, so that a new adapter changes nothing. A slot that sees no row gets
exactly nothing, its feed-forward neither.

Source: Flamingo (arXiv:2204.14198), section 2.2: scalar tanh gates, a feed-forward of 4 times the width, media rows
of the last item before a slot; MoshiVis (arXiv:2503.15633): in front of every layer, projections shared by all layers,
no feed-forward, a gate of every channel from what was attended, sigmoid(MLP(x) - 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from omniloom.errors import ConfigError
from omniloom.interaction.base import Interaction, Moment, Site, SlotFacts
from omniloom.interaction.casting import CastLinear, CastNorm
from omniloom.interaction.layers import layers_of
from omniloom.interaction.sides import Sides, gather_sides, mix, require_projected

__all__ = ["CrossAttention", "CrossAttentionBlock", "CrossAttentionWeights", "TokenGate"]

_GATE_SHRINK = 8  # MoshiVis' code: hidden_dims_factor 0.125


class TokenGate(nn.Module):
    """A gate for every channel of every slot, from what is gated: x * sigmoid(MLP(x) - 4), nearly shut at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(width // _GATE_SHRINK, 1)
        self.down, self.up = CastLinear(width, hidden, bias=False), CastLinear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(torch.relu(self.down(x))) - 4)


class CrossAttentionWeights(nn.Module):
    """The projections of cross-attention, and of the feed-forward behind it: of one layer, or of all together.

    `is_shut`: the output projection begins at zero, where no gate does.
    """

    def __init__(self, width: int, heads: int, ffn: int, is_shut: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.out = CastLinear(width, width, bias=False), CastLinear(width, width, bias=False)
        self.key, self.value = CastLinear(width, width, bias=False), CastLinear(width, width, bias=False)
        if ffn:
            self.ffn_up = CastLinear(width, ffn * width, bias=False)
            self.ffn_down = CastLinear(ffn * width, width, bias=False)
        if is_shut:
            nn.init.zeros_(self.out.weight)

    def attended(self, x: Tensor, keys: Tensor, values: Tensor, visible: Tensor) -> Tensor:
        """(B, L, D) for normed slots (B, L, D)."""
        query = self.split(self.query(x))
        mixed: Tensor = self.out(mix(query * query.shape[-1] ** -0.5, keys, values, visible).transpose(1, 2).flatten(2))
        return mixed

    def split(self, rows: Tensor) -> Tensor:
        """(B, M, D) -> (B, H, M, d)."""
        return rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def fed(self, x: Tensor) -> Tensor:
        """(B, L, D) for normed slots (B, L, D)."""
        fed: Tensor = self.ffn_down(nn.functional.gelu(self.ffn_up(x)))
        return fed


class CrossAttentionBlock(nn.Module):
    """Cross-attention in front of one layer: its norms and gates, and its weights unless all layers share them."""

    def __init__(
        self,
        name: str,
        layer: int,
        weights: CrossAttentionWeights,
        width: int,
        *,
        is_shared: bool,
        gate: Literal["tanh", "token"],
        reads: Literal["last", "all"],
    ) -> None:
        super().__init__()
        self.name, self.layer, self.reads, self.is_shared = name, layer, reads, is_shared
        self.norm = CastNorm(width)
        if gate == "token":
            self.token_gate = TokenGate(width)
        else:
            self.gate = nn.Parameter(torch.zeros(()))
        self.has_ffn = hasattr(weights, "ffn_up")
        if self.has_ffn:
            self.ffn_norm, self.ffn_gate = CastNorm(width), nn.Parameter(torch.zeros(()))
        if is_shared:
            self._weights = (weights,)  # a child of the language model, once for all layers
        else:
            self.weights = weights

    def forward(self, hidden: Tensor, facts: SlotFacts | None) -> Tensor:
        sides: Sides | None = None if facts is None else facts.sides.get(self.name)
        if facts is None or sides is None:
            return hidden
        weights: CrossAttentionWeights = self._weights[0] if self.is_shared else self.weights
        visible = sides.visible(facts, reads=self.reads)
        sees = visible.any(-1, keepdim=True)
        attended = weights.attended(self.norm(hidden), *self._keys_and_values(weights, sides), visible)
        gated = self.token_gate(attended) if hasattr(self, "token_gate") else self.gate.tanh() * attended
        hidden = hidden + gated.to(hidden.dtype) * sees
        if self.has_ffn:
            fed = self.ffn_gate.tanh() * weights.fed(self.ffn_norm(hidden))
            hidden = hidden + fed.to(hidden.dtype) * sees
        return hidden

    def _keys_and_values(self, weights: CrossAttentionWeights, sides: Sides) -> tuple[Tensor, Tensor]:
        """(B, H, M, d) each; made once for a prompt and kept while it is answered."""
        place = -1 if self.is_shared else self.layer
        if place in sides.kept:
            return sides.kept[place]
        made = weights.split(weights.key(sides.rows)), weights.split(weights.value(sides.rows))
        if not torch.is_grad_enabled():
            sides.kept[place] = made
        return made


class CrossAttention(Interaction):
    """Gated cross-attention to media in front of every `every`-th layer.

    Args:
        inputs: modalities that are read; their rows at the end of their projectors.
        every: in front of layers every - 1, 2 * every - 1, ... counted from 0; Flamingo-9B has 4, MoshiVis 1.
        heads: of the cross-attention; they divide the width.
        ffn: width of the feed-forward behind it, in widths of the model; 0 for none.
        shared: one set of projections for all layers.
        gate: "tanh" of a scalar a layer, or of every channel and "token".
        reads: rows of the "last" item before a slot, or of "all".
    Raises:
        ConfigError: no inputs, a count below one, or an unknown gate or reach.
    """

    inputs: Sequence[str] = ()

    def __init__(
        self,
        *,
        inputs: Sequence[str],
        every: int = 4,
        heads: int = 8,
        ffn: int = 4,
        shared: bool = False,
        gate: Literal["tanh", "token"] = "tanh",
        reads: Literal["last", "all"] = "last",
    ) -> None:
        if not inputs:
            raise ConfigError("cross-attention needs `inputs`, the modalities that it reads.")
        if every < 1 or heads < 1 or ffn < 0:
            raise ConfigError(f"cross-attention needs every and heads of at least one; got {every}, {heads}, {ffn}.")
        if gate not in ("tanh", "token") or reads not in ("last", "all"):
            raise ConfigError(
                f"cross-attention has gate 'tanh' or 'token' and reads 'last' or 'all'; got {gate}, {reads}."
            )
        self.inputs, self.every, self.heads, self.ffn = list(inputs), every, heads, ffn
        self.shared, self.gate, self.reads = shared, gate, reads

    def install(self, name: str, site: Site) -> None:
        """Put a block in front of each layer.

        Raises:
            ConfigError: fewer layers than `every`, or a width that the heads do not divide.
        """
        require_projected(name, site, self.inputs)
        if site.width % self.heads:
            raise ConfigError(f"adapter {name!r} has {self.heads} heads, which do not divide the width {site.width}.")
        count = site.backbone.num_layers
        layers = layers_of(name, list(range(self.every - 1, count, self.every)), count)
        device = site.backbone.embedding_table().device
        common: Any = None
        for layer in layers:
            weights = common
            if common is None:
                weights = CrossAttentionWeights(site.width, self.heads, self.ffn, self.gate == "token")
            if self.shared and common is None:
                common = weights
                site.keep(name, weights.to(device))
            block = CrossAttentionBlock(
                name, layer, weights, site.width, is_shared=self.shared, gate=self.gate, reads=self.reads
            )
            site.backbone.hook_before(layer, name, block.to(device), site.context)

    def prepare(self, moment: Moment) -> Sides | None:
        return gather_sides(moment, self.inputs)
