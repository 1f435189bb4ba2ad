"""Fewer slots of media from layer to layer: those that the question attends to least run no further.

Behind each of `layers` the slots of media of a document are ranked by the attention that its question pays them there,
the mean over heads and over the slots of the question; the best stay. The others pass the later layers by: they take
no time there, and no room in the cache. Nothing is learned, and nothing happens while gradients are on: a model is
reduced when it answers. In a conversation of several turns the first question ranks, and media shown behind its answer
stay, so that what was said before is as it was.

A prompt of 1,560 slots through 12 layers of width 512, halved behind two of them, takes 0.60 of the time on one thread
of a CPU and 0.60 of the cache, steps behind it 0.94 of the time (`python benchmarks/token_reduction.py`).

Source: Lyra (arXiv:2412.09501), its latent multi-modality extractor: context tokens that matter to the instruction
are kept at the borders of blocks of layers, a share of them and at least 32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from omniloom.errors import ConfigError
from omniloom.interaction.base import Interaction, Moment, Site, SlotFacts
from omniloom.interaction.layers import layers_of
from omniloom.interaction.lora_experts import prompt_slots
from omniloom.interaction.routes import numbers_of
from omniloom.sequence import Kind

__all__ = ["KeptSlots", "RankedSlots", "Reduction", "TokenReduction"]


@dataclass
class Reduction:
    """(B, L) bool each: `context`, slots of media that may be left out; `asking`, slots of the question. `hidden`:
    behind which layer -> slots that are left out from there on."""

    context: Tensor
    asking: Tensor
    hidden: dict[int, Tensor] = field(default_factory=dict)

    def at(self, layer: int) -> Tensor | None:
        """What is left out in a layer."""
        behind = [border for border in self.hidden if border < layer]
        return self.hidden[max(behind)] if behind else None


class RankedSlots(nn.Module):
    """Ranks the slots of media at one layer, and keeps the best."""

    def __init__(self, name: str, layer: int, keep: float, least: int) -> None:
        super().__init__()
        self.name, self.layer, self.keep, self.least = name, layer, keep, least

    def forward(self, query: Tensor, key: Tensor, facts: SlotFacts | None) -> None:
        found: Reduction | None = None if facts is None or facts.is_step else facts.sides.get(self.name)
        if facts is None or found is None:
            return
        before = found.at(self.layer)
        hidden = torch.zeros_like(found.context) if before is None else before.clone()
        for number in range(int(facts.document.max()) + 1):
            rows, places = (facts.document == number).nonzero(as_tuple=True)
            row = int(rows[0])
            slots = facts.slot[row, places]
            context, asking = places[found.context[row, slots]], places[found.asking[row, slots]]
            kept = max(self.least, math.ceil(self.keep * len(context)))
            if kept < len(context) and len(asking):
                paid = self._paid(query[row], key[row], asking, places)
                worst = context[paid[context].argsort(descending=True, stable=True)[kept:]]
                hidden[row, facts.slot[row, worst]] = True
        found.hidden[self.layer] = hidden

    @staticmethod
    def _paid(query: Tensor, key: Tensor, asking: Tensor, read: Tensor) -> Tensor:
        """(L,) the mean attention of the asking slots, over heads, to each slot that is read; L that run."""
        keys = key.repeat_interleave(query.shape[0] // key.shape[0], 0)[:, read]
        scores = (query[:, asking] @ keys.transpose(1, 2)).float()
        scores = scores.masked_fill(read > asking[:, None], float("-inf"))
        paid = scores.new_zeros(query.shape[1])
        paid[read] = scores.softmax(-1).mean((0, 1))
        return paid


class KeptSlots(nn.Module):
    """Lets what is left out pass a layer by."""

    def __init__(self, name: str, layer: int) -> None:
        super().__init__()
        self.name, self.layer = name, layer

    def forward(self, facts: SlotFacts) -> Tensor | None:
        found: Reduction | None = facts.sides.get(self.name)
        hidden = None if found is None else found.at(self.layer)
        return None if hidden is None or not bool(hidden.any()) else ~hidden


class TokenReduction(Interaction):
    """Keep a share of the slots of media behind some layers, when the model answers.

    Args:
        layers: behind which layers, from 0, slots are left out.
        keep: share of the slots of media of a document that stay, of those that are left.
        least: at least so many stay.
        modalities: whose slots may be left out; "all" of media.
    Raises:
        ConfigError: a share outside of (0, 1], or no least number.
    """

    def __init__(
        self,
        *,
        layers: Sequence[int],
        keep: float = 0.5,
        least: int = 32,
        modalities: str | Sequence[str] = "all",
    ) -> None:
        if not 0 < keep <= 1 or least < 1:
            raise ConfigError(f"token reduction needs 0 < keep <= 1 and a least of at least 1; got {keep}, {least}.")
        self.layers, self.keep, self.least, self.modalities = list(layers), keep, least, modalities

    def install(self, name: str, site: Site) -> None:
        """Watch each of the layers, and narrow the later ones.

        Raises:
            ConfigError: a layer that is not there, or a language model whose layers cannot be narrowed.
        """
        wanted = list(site.modalities) if self.modalities == "all" else self.modalities
        self._routes = numbers_of(wanted, site.modalities, what=f"adapter {name!r}")
        borders = layers_of(name, self.layers, site.backbone.num_layers)
        for layer in borders:
            ranked = RankedSlots(name, layer, self.keep, self.least)
            site.backbone.hook_scores(layer, name, ranked, site.context)
        for layer in range(borders[0] + 1, site.backbone.num_layers):
            site.backbone.hook_kept(layer, name, KeptSlots(name, layer), site.context)

    def prepare(self, moment: Moment) -> Reduction | None:
        """Slots of media, and of the question: text of the prompt behind the last of them, or its last slot."""
        if torch.is_grad_enabled():
            return None
        plan = moment.plan
        prompt = prompt_slots(plan)
        routes = torch.tensor(self._routes, device=plan.route.device)
        context = prompt & (plan.kind == int(Kind.MEDIA)) & torch.isin(plan.route, routes)
        if not bool(context.any()):
            return None
        asking = torch.zeros_like(context)
        for number in range(len(plan.samples)):
            row, slots = (prompt & (plan.document == number)).nonzero(as_tuple=True)
            seen = context[row, slots].nonzero()[:, 0]
            if len(seen):
                behind = slots[int(seen[-1]) + 1 :]
                text = behind[plan.kind[row[0], behind] == int(Kind.TEXT)]
                asking[row[0], text if len(text) else slots[-1:]] = True
        return Reduction(context & ~asking, asking)  # what asks stays: the answer begins behind it
