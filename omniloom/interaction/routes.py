"""On which slots an interaction acts: named by modality, by what a slot is or by what its document holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from omniloom.errors import ConfigError, did_you_mean
from omniloom.interaction.base import Moment, SlotFacts
from omniloom.sequence import Plan, PlannedItem

__all__ = ["Where", "documents_of", "numbers_of"]


def numbers_of(names: str | Sequence[str], modalities: Sequence[str], *, what: str) -> tuple[int, ...]:
    """Routes by name: "text" is 0, the modalities 1, 2, ...

    Raises:
        ConfigError: a name that no modality has; `what` names the interaction in the message.
    """
    numbers = {"text": 0, **{modality: index + 1 for index, modality in enumerate(modalities)}}
    wanted = [names] if isinstance(names, str) else list(names)
    for name in wanted:
        if name not in numbers:
            raise ConfigError(f"{what} is routed to {name!r}.{did_you_mean(name, numbers)}")
    return tuple(numbers[name] for name in wanted)


def documents_of(plan: Plan, items: Sequence[PlannedItem]) -> list[int]:
    """The document of each item; one without slots stands before the slot of its start, or ends its document."""
    table = plan.document.cpu()
    found = []
    for item in items:
        places = [place for place in (item.start, item.start - 1) if 0 <= place < plan.shape[1]]
        documents = [number for place in places if (number := int(table[item.row, place])) >= 0]
        named = [number for number in documents if plan.samples[number] == item.sample]
        found.append([*named, *documents][0])
    return found


class Where:
    """The slots of some routes, or all slots of the documents that hold an input item of such a route.

    `routes` None: everywhere. With `when` "document" what is on is found once for a plan and read from
    `facts.sides[name]`.
    """

    def __init__(self, name: str, routes: tuple[int, ...] | None, when: Literal["slot", "document"]) -> None:
        self.name, self.routes, self.when = name, routes, when

    def found(self, moment: Moment) -> Tensor | None:
        """(documents,) bool: which documents hold an item of the routes; None where slots are asked, not documents."""
        if self.routes is None or self.when == "slot":
            return None
        plan = moment.plan
        wanted = {plan.modalities[route - 1] for route in self.routes if route}
        on = torch.zeros(len(plan.samples), dtype=torch.bool)
        on[documents_of(plan, [item for item in plan.items if item.role != "out" and item.modality in wanted])] = True
        return on.to(moment.embeds.device)

    def chosen(self, shape: Sequence[int], facts: SlotFacts | None) -> Tensor | None:
        """Bool of the given shape, one for every slot that runs; None: all of them.

        Raises:
            ConfigError: the facts do not tell of as many slots.
        """
        if self.routes is None:
            return None
        if facts is None or facts.route.numel() != torch.Size(shape).numel():
            raise ConfigError(
                "a routed adapter needs the plan's route for every slot; run it through the model's forward."
            )
        if self.when == "document":
            active: Any = facts.sides[self.name]
            on = active[facts.document.clamp(min=0)] & (facts.document >= 0)
        else:
            on = torch.isin(facts.route, torch.tensor(self.routes, device=facts.route.device))
        return on.reshape(shape)  # some layers flatten their slots
