"""Low-rank adapters at linear layers, on all slots, on those of some modalities, or where a document holds them.

Source: LoRA (arXiv:2106.09685); routing by token type as in DAMC (arXiv:2402.12750), whose text adapter is several
merged online with coefficients; by the modalities of the input as in Phi-4-Multimodal (arXiv:2503.01743).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from omniloom.errors import CheckpointError, ConfigError
from omniloom.interaction.base import Interaction, Moment, Site, SlotFacts
from omniloom.interaction.hooks import LinearHook, hook_linears, linear_names
from omniloom.interaction.routes import Where, numbers_of
from omniloom.registry import schema

__all__ = ["TARGETS", "LoRA", "LowRank", "Merged", "hook_targets", "rescaled"]

TARGETS = ("*.q_proj", "*.k_proj", "*.v_proj", "*.o_proj", "*.gate_proj", "*.up_proj", "*.down_proj")
_EVERYWHERE = Where("", None, "slot")


class LowRank(LinearHook):
    """x -> scale * up(down(x)) on the chosen slots; `up` starts at zero, so a new adapter changes nothing.

    Weights are float32 whatever the base is: an optimizer step below bfloat16's resolution would be lost.
    """

    def __init__(self, in_dim: int, out_dim: int, rank: int, scale: float, where: Where = _EVERYWHERE) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, in_dim))
        self.up = nn.Parameter(torch.zeros(out_dim, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.scale, self.where = scale, where

    def forward(self, x: Tensor, facts: SlotFacts | None) -> Tensor:
        update = (x @ self.down.to(x.dtype).T) @ self.up.to(x.dtype).T * self.scale
        chosen = self.where.chosen(x.shape[:-1], facts)
        return update if chosen is None else update * chosen[..., None].to(update.dtype)


class Merged(LinearHook):
    """Several low-rank updates at one layer, added with fixed coefficients."""

    def __init__(self, branches: Mapping[str, LowRank], coefficients: Mapping[str, float]) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(dict(branches))
        self.coefficients = dict(coefficients)

    def forward(self, x: Tensor, facts: SlotFacts | None) -> Tensor:
        updates = [self.coefficients[name] * branch(x, facts) for name, branch in self.branches.items()]
        return sum(updates[1:], updates[0])


class LoRA(Interaction):
    """One set of low-rank adapters over the language model.

    Args:
        targets: globs over the names of its linear layers.
        routes: "all" slots, or the names of the modalities (and "text") on whose slots it acts.
        when: "slot" acts on the routed slots alone; "document" on all slots of a document that holds an input of the
            routes, so that what is asked about an input and what is answered runs through its adapter too. A document
            is one conversation: an input that comes in a later turn is felt by the turns before it.
        merged: branch -> coefficient: instead of one update a layer, several, added with these coefficients.
    Raises:
        ConfigError: a rank below 1, an unknown `when`, no branches, or text among the routes of documents.
    """

    def __init__(
        self,
        *,
        rank: int = 8,
        alpha: float = 16.0,
        targets: Sequence[str] = TARGETS,
        routes: str | Sequence[str] = "all",
        when: Literal["slot", "document"] = "slot",
        merged: Mapping[str, float] | None = None,
    ) -> None:
        if rank < 1:
            raise ConfigError(f"LoRA rank is {rank}; expected 1 or more.")
        if when not in ("slot", "document"):
            raise ConfigError(f"LoRA is on `when: {when}`; expected slot or document.")
        if when == "document" and ("text" in routes or routes == "all"):
            raise ConfigError("LoRA `when: document` needs modalities as `routes`; every document holds text.")
        if merged is not None and not merged:
            raise ConfigError("LoRA `merged` names no branch; give each its coefficient, or leave `merged` out.")
        self.rank, self.alpha, self.targets, self.routes = rank, alpha, list(targets), routes
        self.when, self.merged = when, merged

    def install(self, name: str, site: Site) -> None:
        """Hook the adapters into the language model under `name`."""
        what = f"adapter {name!r}"
        numbers = None if self.routes == "all" else numbers_of(self.routes, site.modalities, what=what)
        self._where = Where(name, numbers, self.when)
        scale = self.alpha / self.rank

        def make(in_dim: int, out_dim: int) -> LinearHook:
            if self.merged is None:
                return LowRank(in_dim, out_dim, self.rank, scale, self._where)
            branches = {branch: LowRank(in_dim, out_dim, self.rank, scale, self._where) for branch in self.merged}
            return Merged(branches, self.merged)

        hook_targets(name, site, self.targets, make)

    def prepare(self, moment: Moment) -> Any:
        return self._where.found(moment)

    def adopted(self, state: Mapping[str, Tensor], options: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Updates as large as they were under another `alpha`."""
        return rescaled(state, self, options)

    def placed(
        self, name: str, place: str, state: Mapping[str, Tensor], target: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """A whole adapter as one of the branches of `merged`."""
        branches = list(self.merged or ())
        if place not in branches:
            raise ConfigError(f"the adapter {name!r} has no branch {place!r}. Its `merged` names {branches}.")
        part = f".adapters.{name}.branches.{place}."
        theirs = {key: key.replace(part, f".adapters.{name}.") for key in target if part in key}
        if set(theirs.values()) != set(state):
            odd = min(set(theirs.values()) ^ set(state))
            raise CheckpointError(
                f"branch {place!r} of {name!r} takes an adapter at the same layers; {odd} is on one side only. "
                "Give both the same `targets`."
            )
        return {ours: state[key] for ours, key in theirs.items()}


def rescaled(state: Mapping[str, Tensor], adapter: Any, options: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """Low-rank weights that were trained under `options`, so that they change as much under the adapter's alpha."""
    known = schema(type(adapter))
    alpha, rank = (float(options.get(name, known[name].default)) for name in ("alpha", "rank"))
    if not adapter.alpha or alpha / rank == adapter.alpha / adapter.rank:
        return state
    factor = (alpha / rank) / (adapter.alpha / adapter.rank)
    return {name: value * factor if name.endswith(".up") else value for name, value in state.items()}


def hook_targets(name: str, site: Site, targets: Sequence[str], make: Callable[[int, int], LinearHook]) -> None:
    """Put `make(in_dim, out_dim)` at every linear layer of the language model that a glob matches."""
    layers: dict[str, LinearHook] = {}
    for path in linear_names(site.backbone, targets):
        layer = site.backbone.get_submodule(path)
        base: Any = getattr(layer, "base", layer)
        layers[path] = make(base.in_features, base.out_features).to(base.weight.device)
    site.backbone.remember(site.context)
    hook_linears(site.backbone, name, layers, site.context)
