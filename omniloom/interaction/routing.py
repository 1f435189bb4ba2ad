"""Which experts a slot takes, and with what weights.

Source: top-k with weights normalised over the chosen, Mixtral (arXiv:2401.04088) and Uni-MoE (arXiv:2405.11273); the
smallest set of experts whose probabilities reach p, with null and shared experts, as in Uni-MoE-2.0-Omni
(arXiv:2511.12609); the balance loss of Switch Transformers (arXiv:2101.03961).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Routing", "balance", "route_slots"]


@dataclass(frozen=True)
class Routing:
    """For N slots and R routed experts: `chosen` (N, R) bool; `weights` (N, R + shared), which sum to 1, zero where not
    chosen; `probabilities` (N, R) before any choice."""

    chosen: Tensor
    weights: Tensor
    probabilities: Tensor


def route_slots(logits: Tensor, shared: int, top_k: int, top_p: float | None, allowed: Tensor | None = None) -> Routing:
    """Choose among the first R of the (N, R + shared) logits; the last `shared` experts are taken by every slot.

    `top_p` replaces `top_k`: as few experts as reach that probability together. `allowed`: (N, R) bool.
    """
    routed = logits.shape[1] - shared
    own = logits[:, :routed]
    if allowed is not None:
        own = own.masked_fill(~allowed, float("-inf"))
    probabilities = own.softmax(-1)
    if top_p is None:
        taken = torch.ones_like(probabilities[:, : min(top_k, routed)], dtype=torch.bool)
        order = probabilities.topk(taken.shape[1], dim=-1).indices
    else:
        ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
        taken = ranked.cumsum(-1) - ranked < top_p
    chosen = torch.zeros_like(probabilities, dtype=torch.bool).scatter(1, order, taken)
    if allowed is not None:
        chosen = chosen & allowed
    among = torch.cat([chosen, chosen.new_ones(len(chosen), shared)], 1)
    return Routing(chosen, logits.masked_fill(~among, float("-inf")).softmax(-1), probabilities)


def balance(routing: Routing, real: Tensor) -> Tensor:
    """R * sum of (share of the choices) * (mean probability), over the `real` slots; 1 if all are alike."""
    choices = routing.chosen[real].float().sum(0)
    share = choices / choices.sum().clamp(min=1)
    return len(share) * (share * routing.probabilities[real].mean(0)).sum()
