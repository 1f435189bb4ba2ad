"""Soft prompts: the first slots of every conversation hold what is learned instead of the words that stand there.

Learned rows, zero at first, are added to the hidden states of those slots, so a prompt begins as the words of the
template's opening and a new adapter changes nothing. Give the language model a system prompt (`backbone.system`) of at
least as many tokens; where a conversation begins with fewer, its user's words would be moved as well.

Source: prompt tuning (arXiv:2104.08691), begun at words as in its section 3.2; eP-ALM (arXiv:2303.11403) trains 10
such slots beside its connectors; in front of every layer as in P-Tuning v2 (arXiv:2110.07602).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from omniloom.errors import ConfigError
from omniloom.interaction.base import Interaction, Moment, Site, SlotFacts
from omniloom.interaction.layers import layers_of

__all__ = ["Prompt", "PromptRows"]


class PromptRows(nn.Module):
    """Learned rows of the first slots of a document, in front of one layer; float32 whatever the base is."""

    def __init__(self, name: str, length: int, width: int) -> None:
        super().__init__()
        self.name = name
        self.rows = nn.Parameter(torch.zeros(length, width))

    def forward(self, hidden: Tensor, facts: SlotFacts | None) -> Tensor:
        rank: Tensor | None = None if facts is None or facts.is_step else facts.sides.get(self.name)
        if facts is None or rank is None:
            return hidden
        # All slots of a plan run, or those of one side of an encoder-decoder.
        rank = rank.gather(1, facts.slot).masked_fill(facts.document < 0, len(self.rows))
        rows = torch.cat([self.rows, self.rows.new_zeros(1, self.rows.shape[1])])
        return hidden + rows.to(hidden.dtype)[rank.clamp(max=len(self.rows))]


class Prompt(Interaction):
    """Learned rows in the first slots of every document.

    Args:
        length: how many slots.
        layers: in front of which layers, from 0: [0] for a prompt at the input, "all" for deep prompts.
    Raises:
        ConfigError: no slots.
    """

    def __init__(self, *, length: int = 10, layers: str | Sequence[int] = (0,)) -> None:
        if length < 1:
            raise ConfigError(f"a prompt needs a length of at least 1, got {length}.")
        self.length, self.layers = length, layers

    def install(self, name: str, site: Site) -> None:
        """Put the rows in front of each layer."""
        device = site.backbone.embedding_table().device
        for layer in layers_of(name, self.layers, site.backbone.num_layers):
            rows = PromptRows(name, self.length, site.width).to(device)
            site.backbone.hook_before(layer, name, rows, site.context)

    def prepare(self, moment: Moment) -> Any:
        """(B, L) the place of each slot in its document; `length` for padding."""
        plan = moment.plan
        real = plan.document >= 0
        slot = torch.arange(plan.shape[1], device=plan.document.device).expand(plan.shape)
        first = torch.full((len(plan.samples),), plan.shape[1], device=slot.device)
        first = first.scatter_reduce(0, plan.document[real], slot[real], "amin")
        return (slot - first[plan.document.clamp(min=0)]).masked_fill(~real, self.length)
