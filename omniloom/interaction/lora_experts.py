"""Several low-rank adapters at every linear layer, of which a gate chooses a few for a whole conversation.

The gate sees the mean of the embeddings that the language model is given, media among them, up to where the answer
begins; so it decides once, the same in training and when the question is answered.

Source: Octavius (arXiv:2311.02684), LoRA-MoE with an instance-based gate, top 2 of 3 to 6 experts of rank 32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from omniloom.errors import ConfigError
from omniloom.interaction.base import Interaction, Moment, Site, SlotFacts
from omniloom.interaction.hooks import LinearHook
from omniloom.interaction.lora import TARGETS, hook_targets, rescaled
from omniloom.interaction.routing import route_slots
from omniloom.sequence import IGNORE, Plan

__all__ = ["LoRAExperts", "LowRankExperts", "prompt_slots"]


class LowRankExperts(LinearHook):
    """x -> scale * sum of w_e up_e(down_e(x)), w of the slot's document; `up` starts at zero.

    Weights are float32 whatever the base is.
    """

    def __init__(self, name: str, in_dim: int, out_dim: int, experts: int, rank: int, scale: float) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(experts, rank, in_dim))
        self.up = nn.Parameter(torch.zeros(experts, out_dim, rank))
        for part in self.down:
            nn.init.kaiming_uniform_(part, a=math.sqrt(5))
        self.name, self.scale = name, scale

    def forward(self, x: Tensor, facts: SlotFacts | None) -> Tensor:
        weights: Tensor | None = None if facts is None else facts.sides.get(self.name)
        if facts is None or weights is None or facts.document.numel() != x.shape[:-1].numel():
            raise ConfigError("gated adapters need the plan's documents; run them through the model's forward.")
        mine = (
            weights[facts.document.clamp(min=0)] * (facts.document >= 0)[..., None]
        )  # some layers flatten their slots
        inner = (x @ self.down.flatten(0, 1).to(x.dtype).T).unflatten(-1, self.down.shape[:2])
        inner = inner * mine.reshape(*x.shape[:-1], -1, 1).to(x.dtype)  # some layers flatten their slots
        return inner.flatten(-2) @ self.up.transpose(1, 2).flatten(0, 1).to(x.dtype) * self.scale


class LoRAExperts(Interaction):
    """Low-rank adapters with an instance-based gate.

    Args:
        experts: adapters at each layer.
        top_k: how many of them a conversation takes, weighted by a softmax over those.
        rank, alpha, targets: as of `lora`.
    Raises:
        ConfigError: counts that mean nothing.
    """

    def __init__(
        self,
        *,
        experts: int = 4,
        top_k: int = 2,
        rank: int = 32,
        alpha: float = 32.0,
        targets: Sequence[str] = TARGETS,
    ) -> None:
        if rank < 1 or not 1 <= top_k <= experts:
            raise ConfigError(
                f"lora_experts needs a rank of at least 1 and 1 <= top_k <= experts; got {rank}, {top_k}, {experts}."
            )
        self.experts, self.top_k, self.rank, self.alpha, self.targets = experts, top_k, rank, alpha, list(targets)

    def install(self, name: str, site: Site) -> None:
        """Hook the adapters into the language model under `name`, and keep the gate beside its layers."""
        table = site.backbone.embedding_table()
        self._gate = nn.Linear(table.shape[1], self.experts, bias=False, device=table.device)
        site.keep(name, self._gate)
        scale = self.alpha / self.rank

        def make(in_dim: int, out_dim: int) -> LinearHook:
            return LowRankExperts(name, in_dim, out_dim, self.experts, self.rank, scale)

        hook_targets(name, site, self.targets, make)

    def adopted(self, state: Mapping[str, Tensor], options: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Updates as large as they were under another `alpha`."""
        return rescaled(state, self, options)

    def prepare(self, moment: Moment) -> Any:
        """(documents, experts) weights, zero for those that are not taken."""
        plan, embeds = moment.plan, moment.embeds
        asked = prompt_slots(plan)
        document = plan.document[asked]
        given = embeds[asked].to(self._gate.weight.dtype)
        sums = given.new_zeros(len(plan.samples), given.shape[1]).index_add(0, document, given)
        means = sums / torch.bincount(document, minlength=len(plan.samples))[:, None]
        return route_slots(self._gate(means), 0, self.top_k, None).weights


def prompt_slots(plan: Plan) -> Tensor:
    """(B, L) bool: the slots of each document up to the first that predicts something to learn; all where none does."""
    real = plan.document >= 0
    learned = (plan.label != IGNORE).long()
    before = learned.cumsum(1) - learned
    least = torch.full((len(plan.samples),), plan.ids.numel(), device=before.device)
    least = least.scatter_reduce(0, plan.document[real], before[real], "amin")
    return real & (before == least[plan.document.clamp(min=0)])
