"""Low-rank adapters at linear layers, optionally only on the slots of some modalities.

Source: LoRA (arXiv:2106.09685); routing by token type as in DAMC (arXiv:2402.12750).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from omniloom.errors import ConfigError, did_you_mean
from omniloom.interaction.base import Interaction, Site, SlotFacts
from omniloom.interaction.hooks import LinearHook, hook_linears, linear_names

__all__ = ["LoRA", "LowRank"]


class LowRank(LinearHook):
    """x -> scale * up(down(x)) on the routed slots; `up` starts at zero, so a new adapter changes nothing.

    Weights are float32 whatever the base is: an optimizer step below bfloat16's resolution would be lost.
    """

    def __init__(self, in_dim: int, out_dim: int, rank: int, scale: float, routes: Sequence[int] | None) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, in_dim))
        self.up = nn.Parameter(torch.zeros(out_dim, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.scale = scale
        self.routes = None if routes is None else tuple(routes)

    def forward(self, x: Tensor, facts: SlotFacts | None) -> Tensor:
        update = (x @ self.down.to(x.dtype).T) @ self.up.to(x.dtype).T * self.scale
        if self.routes is None:
            return update
        route = None if facts is None else facts.route
        if route is None or route.shape != x.shape[:-1]:
            raise ConfigError(
                "a routed adapter needs the plan's route for every slot; run it through the model's forward."
            )
        chosen = torch.isin(route, torch.tensor(self.routes, device=route.device))
        return update * chosen[..., None].to(update.dtype)


class LoRA(Interaction):
    """One set of low-rank adapters over the language model.

    `targets`: globs over the names of its linear layers. `routes`: "all" slots, or the names of the modalities (and
    "text") on whose slots it acts.
    """

    def __init__(
        self,
        *,
        rank: int = 8,
        alpha: float = 16.0,
        targets: Sequence[str] = (
            "*.q_proj",
            "*.k_proj",
            "*.v_proj",
            "*.o_proj",
            "*.gate_proj",
            "*.up_proj",
            "*.down_proj",
        ),
        routes: str | Sequence[str] = "all",
    ) -> None:
        if rank < 1:
            raise ConfigError(f"LoRA rank is {rank}; expected 1 or more.")
        self.rank, self.alpha, self.targets, self.routes = rank, alpha, list(targets), routes

    def install(self, name: str, site: Site) -> None:
        """Hook the adapters into the language model under `name`; text has the route 0, modalities 1, 2, ..."""
        routes = None
        if self.routes != "all":
            numbers = {"text": 0, **{modality: index + 1 for index, modality in enumerate(site.modalities)}}
            wanted = [self.routes] if isinstance(self.routes, str) else list(self.routes)
            for modality in wanted:
                if modality not in numbers:
                    raise ConfigError(f"adapter {name!r} is routed to {modality!r}.{did_you_mean(modality, numbers)}")
            routes = [numbers[modality] for modality in wanted]
        scale = self.alpha / self.rank
        layers: dict[str, LinearHook] = {}
        for path in linear_names(site.backbone, self.targets):
            layer = site.backbone.get_submodule(path)
            base: Any = getattr(layer, "base", layer)
            layers[path] = LowRank(base.in_features, base.out_features, self.rank, scale, routes).to(base.weight.device)
        hook_linears(site.backbone, name, layers, site.context)
