"""Sparse experts in the place of a layer's feed-forward.

A router gives each slot a few experts, and the weighted sum of what they make of it; no slot is dropped. Experts begin
as copies of the dense feed-forward: while they are alike, weights that sum to 1 give the dense result up to rounding,
whatever the router says. Experts that were trained apart are put in by `init`.

Source: Uni-MoE (arXiv:2405.11273): 4 or 8 experts, top 2, experts from feed-forwards trained on one modality each;
Uni-MoE-2.0-Omni (arXiv:2511.12609): top-p with null and shared experts.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from omniloom.errors import CheckpointError, ConfigError
from omniloom.interaction.base import HookContext, Interaction, Site, SlotFacts
from omniloom.interaction.hooks import HookedLinear
from omniloom.interaction.layers import layers_of
from omniloom.interaction.routes import numbers_of
from omniloom.interaction.routing import Routing, balance, route_slots
from omniloom.sequence import Auxiliary

__all__ = ["MoEFFN", "SparseExperts"]

_ROUTER_STD = 0.02


class SparseExperts(nn.Module):
    """The experts of one layer: `experts` that are routed, `shared` ones that every slot takes, and the router.

    The router is float32 whatever the experts are: near ties must not be decided by rounding.
    """

    def __init__(self, options: MoEFFN, name: str, layer: int, dense: nn.Module, width: int, context: HookContext):
        super().__init__()
        self.experts = nn.ModuleList(_plain_copy(dense) for _ in range(options.experts))
        self.shared = nn.ModuleList(_plain_copy(dense) for _ in range(options.shared))
        self.router = nn.Parameter(torch.empty(options.experts + options.null + options.shared, width))
        nn.init.normal_(self.router, std=_ROUTER_STD)
        self.name, self.layer, self.options, self.context = name, layer, options, context
        self.allowed: Tensor | None = None  # (routes, routed) bool
        self.replaces = not options.residual

    def forward(self, hidden: Tensor, base: nn.Module, facts: SlotFacts | None) -> Tensor:
        x = hidden.reshape(-1, hidden.shape[-1])
        logits = x.to(self.router.dtype) @ self.router.T
        options = self.options
        routing = route_slots(logits, options.shared, options.top_k, options.top_p, self._allowed(len(x), facts))
        weights = routing.weights.to(x.dtype)
        total = self._routed(x, routing, weights, base)
        result = base(hidden) + total.view_as(hidden) if options.residual else total.view_as(hidden)
        for number, expert in enumerate(self.shared):
            made = expert(hidden)
            if options.residual:
                with self.context.plain():
                    made = made - base(hidden)
            result = result + weights[:, number - options.shared].view(*hidden.shape[:-1], 1) * made
        self._add_balance(routing, facts)
        return result

    def _routed(self, x: Tensor, routing: Routing, weights: Tensor, base: nn.Module) -> Tensor:
        """(N, D): slots sorted by expert, each expert run once on all of its own."""
        chosen = routing.chosen[:, : len(self.experts)]
        slot = chosen.T.nonzero()[:, 1]
        total = torch.zeros_like(x)
        for index, (expert, slots) in enumerate(zip(self.experts, slot.split(chosen.sum(0).tolist()), strict=True)):
            # An expert without slots runs on none: its weights get a gradient of zero, as on any other worker.
            given = x[slots][None]
            made = expert(given)
            if self.options.residual:
                # On the same slots, so that an untrained expert differs by nothing, and as it was copied: adapters of
                # the dense one count once, in what it makes of all slots.
                with self.context.plain():
                    made = made - base(given)
            total = total.index_add(0, slots, weights[slots, index, None] * made[0])
        return total

    def _allowed(self, slots: int, facts: SlotFacts | None) -> Tensor | None:
        if self.allowed is None:
            return None
        if facts is None or facts.route.numel() != slots:
            raise ConfigError(
                f"the experts of {self.name!r} are routed by modality, which needs the plan's route for every slot; "
                "run it through the model's forward."
            )
        return self.allowed.to(facts.route.device)[facts.route.flatten()]

    def _add_balance(self, routing: Routing, facts: SlotFacts | None) -> None:
        if facts is None or facts.is_step or not self.options.balance or not torch.is_grad_enabled():
            return
        real = (facts.document >= 0).flatten()
        count = real.sum()
        loss = Auxiliary(balance(routing, real) * count, count, self.options.balance, is_coupled=True)
        self.context.losses[f"{self.name}/balance/{self.layer}"] = loss


def _plain_copy(dense: nn.Module) -> nn.Module:
    """A copy of a feed-forward without adapters at its linear layers."""
    twin = copy.deepcopy(dense)
    for name, part in list(twin.named_modules()):
        if isinstance(part, HookedLinear):
            parent, _, leaf = name.rpartition(".")
            setattr(twin.get_submodule(parent), leaf, part.base)
    return twin


class MoEFFN(Interaction):
    """Experts in the place of the feed-forward of chosen layers.

    Args:
        experts: copies of the dense feed-forward that are routed.
        top_k: how many a slot takes. Of one alone the weight is 1 whatever the router says, so that it learns from
            `balance` only.
        top_p: take as few as reach this probability together, instead of `top_k`; Uni-MoE-2.0-Omni: 0.7.
        shared: further copies that every slot takes, weighted by the same router.
        null: experts that give nothing: a slot that takes one computes less.
        layers: "all", or a list of layers from 0.
        balance: weight of the loss R * sum f_e p_e of each layer.
        route: modality (or "text") -> the experts its slots may take, from 0; others may take all.
        residual: dense(x) + sum of w_e (expert_e(x) - dense(x)): the same function, where the null experts keep the
            dense result, for up to twice the work. A new adapter then changes nothing bit for bit.
    Raises:
        ConfigError: counts or probabilities that mean nothing, an expert that is not there, or, without `residual`,
            adapters at the feed-forward that the experts replace.
    """

    def __init__(
        self,
        *,
        experts: int = 4,
        top_k: int = 2,
        top_p: float | None = None,
        shared: int = 0,
        null: int = 0,
        layers: str | Sequence[int] = "all",
        balance: float = 0.01,
        route: Mapping[str, Sequence[int]] | None = None,
        residual: bool = False,
    ) -> None:
        if experts < 1 or shared < 0 or null < 0 or not 1 <= top_k <= experts + null:
            raise ConfigError(
                f"moe_ffn needs at least one expert and a top_k among them; got experts={experts}, null={null}, "
                f"shared={shared}, top_k={top_k}."
            )
        if (top_p is not None and not 0 < top_p <= 1) or balance < 0:
            raise ConfigError(f"moe_ffn needs 0 < top_p <= 1 and a balance of 0 or more; got {top_p}, {balance}.")
        for modality, numbers in (route or {}).items():
            if not numbers or any(type(number) is not int or not 0 <= number < experts for number in numbers):
                raise ConfigError(
                    f"moe_ffn routes {modality!r} to {numbers}; expected some of the experts 0 to {experts - 1}."
                )
        self.experts, self.top_k, self.top_p, self.shared, self.null = experts, top_k, top_p, shared, null
        self.layers, self.balance, self.route, self.residual = layers, balance, route, residual

    def install(self, name: str, site: Site) -> None:
        """Copy the feed-forward of each layer, and stand in its place."""
        allowed = self._table(name, site.modalities)
        for layer in layers_of(name, self.layers, site.backbone.num_layers):
            dense = site.backbone.ffn(layer)
            hooked = [path for path, part in dense.named_modules() if isinstance(part, HookedLinear)]
            if hooked and not self.residual:
                raise ConfigError(
                    f"{name!r} would replace a feed-forward whose {hooked} other adapters change, and it would never "
                    "run. Leave those out of their `targets`, or set `residual: true`."
                )
            hook = SparseExperts(self, name, layer, dense, site.width, site.context)
            hook.allowed = allowed
            hook.router.data = hook.router.data.to(next(dense.parameters()).device)
            site.backbone.hook_ffn(layer, name, hook, site.context)

    def placed(
        self, name: str, place: str, state: Mapping[str, Tensor], target: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """One expert of every layer: the feed-forwards of a language model that was trained, or the only expert of
        another mixture."""
        if place not in map(str, range(self.experts)):
            raise ConfigError(f"{name!r} has the experts 0 to {self.experts - 1}, no {place!r}.")
        found = {}
        for ours, value in target.items():
            layer, part, key = ours.partition(f".adapters.{name}.ffn.experts.{place}.")
            if not part:
                continue
            mixture = re.escape(f"adapters.{name}.ffn.experts.") + r"\d+"
            theirs = re.compile(re.escape(layer) + rf"\.([^.]+|{mixture})\." + re.escape(key))
            given = [tensor for other, tensor in state.items() if theirs.fullmatch(other)]
            if len(given) != 1 or given[0].shape != value.shape:
                shapes = [tuple(tensor.shape) for tensor in given] or "nothing"
                raise CheckpointError(
                    f"expert {place} of {name!r} needs one {key} of shape {tuple(value.shape)} in {layer}; the weights "
                    f"given hold {shapes}. Take a run of the same language model that trained its feed-forwards, or a "
                    "moe_ffn of one expert."
                )
            found[ours] = given[0]
        return found

    def _table(self, name: str, modalities: Sequence[str]) -> Tensor | None:
        if not self.route:
            return None
        table = torch.ones(1 + len(modalities), self.experts + self.null, dtype=torch.bool)
        for modality, experts in self.route.items():
            (number,) = numbers_of(modality, modalities, what=f"adapter {name!r}")
            table[number] = False
            table[number, list(experts)] = True
        return table
