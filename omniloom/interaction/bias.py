"""Learned biases at linear layers that have none, or beside those they have.

Source: bias tuning of LLaMA-Adapter V2 (arXiv:2304.15010), as ImageBind-LLM (arXiv:2309.03905) fine-tunes with: biases
and norms. Norms need no adapter: a stage trains them as `backbone.*norm*`, and biases that are there as
`backbone.*bias`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from omniloom.interaction.base import Interaction, Site, SlotFacts
from omniloom.interaction.hooks import LinearHook
from omniloom.interaction.lora import TARGETS, hook_targets

__all__ = ["AddedBias", "Bias"]


class AddedBias(LinearHook):
    """Adds the same row to every slot; zero at first, and float32 whatever the base is."""

    def __init__(self, out_dim: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(out_dim))

    def forward(self, x: Tensor, facts: SlotFacts | None) -> Tensor:
        return self.bias.to(x.dtype)


class Bias(Interaction):
    """A bias at every linear layer of the language model that a glob of `targets` matches."""

    def __init__(self, *, targets: Sequence[str] = TARGETS) -> None:
        self.targets = list(targets)

    def install(self, name: str, site: Site) -> None:
        """Hook the biases into the language model under `name`."""
        hook_targets(name, site, self.targets, lambda _, out_dim: AddedBias(out_dim))
