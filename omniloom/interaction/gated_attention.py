"""Zero-gated attention to media beside the layer's own: rows of media are keys and values of every chosen layer.

    mixed + tanh(gate) * softmax(Q K_a^T) V_a        K_a, V_a: the layer's own projections of (rows + the layer's query)

The two softmaxes are apart, and the gates, one a head, begin at zero: a new adapter changes nothing, and the language
model keeps what it knew. Keys of media are not rotated; they have no place among the slots.

Source: LLaMA-Adapter (arXiv:2303.16199), section 3; with media as in ImageBind-LLM (arXiv:2309.03905) and TVL-LLaMA
(arXiv:2402.13232), in all layers; in MuMu-LLaMA (arXiv:2412.06660) each modality has a block of layers of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from omniloom.errors import ConfigError
from omniloom.interaction.base import HookContext, Interaction, Moment, Site, SlotFacts
from omniloom.interaction.layers import blocks_of
from omniloom.interaction.sides import Sides, gather_sides, mix, require_projected

__all__ = ["GatedAttention", "GatedSide"]


class GatedSide(nn.Module):
    """What one layer has of its own: a gate a head and a row that is added to the rows of media.

    `routes`: of the modalities that this layer reads. Weights are float32 whatever the language model is.
    """

    def __init__(self, name: str, layer: int, routes: Sequence[int], width: int, heads: int, context: HookContext):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(heads))
        self.query = nn.Parameter(torch.randn(width))  # as in ImageBind-LLM's code: standard normal
        self.name, self.layer, self.routes = name, layer, tuple(routes)
        self.context = context

    def forward(self, query: Tensor, attention: Any, facts: SlotFacts | None) -> Tensor | None:
        sides: Sides | None = None if facts is None else facts.sides.get(self.name)
        if facts is None or sides is None:
            return None
        key, value = self._keys_and_values(sides, attention, facts)
        mixed = mix(query, key, value, sides.visible(facts, self.routes))
        return mixed * self.gate.tanh().to(mixed.dtype)[:, None, None]

    def _keys_and_values(self, sides: Sides, attention: Any, facts: SlotFacts) -> tuple[Tensor, Tensor]:
        """(B, G, M, d) each; made once for a prompt and kept while it is answered."""
        if self.layer in sides.kept:
            return sides.kept[self.layer]
        rows = sides.rows + self.query.to(sides.rows.dtype)
        with self.context.of(sides.facts(facts)):
            key, value = attention.k_proj(rows), attention.v_proj(rows)
        norm, size = getattr(attention, "k_norm", None), attention.head_dim
        if norm is not None and norm.weight.shape[-1] != size:  # over all heads, in front of their parting
            key, norm = norm(key), None
        key, value = (made.unflatten(-1, (-1, size)).transpose(1, 2) for made in (key, value))
        made = (key if norm is None else norm(key)), value
        if not torch.is_grad_enabled():
            sides.kept[self.layer] = made
        return made


class GatedAttention(Interaction):
    """Media read beside the slots by attention of their own in chosen layers.

    Args:
        inputs: modalities that are read; their rows at the end of their projectors.
        layers: "all", a list of layers from 0, or a list for each modality, which then has those layers to itself:
            `{image: [14, 15], sound: [16, 17]}`.
    Raises:
        ConfigError: no inputs, or layers for a modality that is not among them.
    """

    inputs: Sequence[str] = ()

    def __init__(
        self, *, inputs: Sequence[str], layers: str | Sequence[int] | Mapping[str, Sequence[int]] = "all"
    ) -> None:
        if not inputs:
            raise ConfigError("gated attention needs `inputs`, the modalities that it reads.")
        self.inputs, self.layers = list(inputs), layers

    def install(self, name: str, site: Site) -> None:
        """Hook a gate and a query into each chosen layer.

        Raises:
            ConfigError: a layer that is not there, or whose keys and values have no projections of their own.
        """
        require_projected(name, site, self.inputs)
        for layer, modalities in blocks_of(name, self.layers, self.inputs, site.backbone.num_layers).items():
            attention = site.backbone.attention(layer)
            if not all(hasattr(attention, part) for part in ("k_proj", "v_proj", "head_dim")):
                raise ConfigError(
                    f"adapter {name!r} needs the key and value projections of each layer; those of "
                    f"{type(attention).__name__} are no layers of their own. Take another language model."
                )
            routes = [site.modalities.index(modality) + 1 for modality in modalities]
            hook = GatedSide(name, layer, routes, site.width, site.backbone.attention_heads(layer), site.context)
            hook = hook.to(next(attention.parameters()).device)
            site.backbone.hook_attention(layer, name, hook, site.context)

    def prepare(self, moment: Moment) -> Sides | None:
        return gather_sides(moment, self.inputs)
