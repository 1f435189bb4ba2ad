"""Rows that are read inside the layers, beside the slots: which rows a batch has, and which slot may see them.

A slot sees the rows of an item of its own document that stands before it: from the item's first slot on, or, for an
item that fills no slots, from the slot that follows it. So a prompt is the same whatever is said later, and packed
documents do not meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from omniloom.errors import ConfigError
from omniloom.interaction.base import Moment, Site, SlotFacts
from omniloom.interaction.routes import documents_of

__all__ = ["Sides", "gather_sides", "mix", "require_projected"]

_NOBODY = -2  # the document of a place without a row


@dataclass
class Sides:
    """Rows beside a batch, padded to the most a row of the batch has.

    `rows`: (B, M, D). (B, M) each: `document`, -2 where there is no row; `start`, the slot from which they are seen;
    `item`, number of their item; `route`, 1 + index of their modality. `kept`: what hooks keep by layer while the
    batch is decoded, such as keys and values of these rows.
    """

    rows: Tensor
    document: Tensor
    start: Tensor
    item: Tensor
    route: Tensor
    kept: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def visible(
        self, facts: SlotFacts, routes: Sequence[int] | None = None, reads: Literal["all", "last"] = "all"
    ) -> Tensor:
        """(B, L, M) bool: which rows each slot sees; of all items, or of the last one before it.

        `routes`: of these modalities alone.
        """
        seen = (facts.document[:, :, None] == self.document[:, None]) & (facts.slot[:, :, None] >= self.start[:, None])
        if routes is not None:
            wanted = torch.tensor(tuple(routes), device=self.route.device)
            seen = seen & torch.isin(self.route, wanted)[:, None]
        if reads == "last":
            item = torch.where(seen, self.item[:, None], -1)
            seen = seen & (item == item.amax(-1, keepdim=True))
        return seen

    def facts(self, facts: SlotFacts) -> SlotFacts:
        """Facts of the rows as if they were slots, for layers that choose by the route of what they map."""
        return SlotFacts(self.route, self.document.clamp(min=-1), self.start, facts.is_step, facts.sides)


def gather_sides(moment: Moment, inputs: Sequence[str]) -> Sides | None:
    """The projected rows of all items of some modalities; None where the batch has none.

    What a fuser made into rows of its own is read there and not by itself.
    """
    device, plan = moment.embeds.device, moment.plan
    batch: list[list[tuple[int, int, int, int]]] = [[] for _ in range(plan.shape[0])]
    rows: list[list[Tensor]] = [[] for _ in range(plan.shape[0])]
    order = {id(item): number for number, item in enumerate(plan.items)}
    for modality in inputs:
        if modality not in moment.media:
            continue
        media = moment.media[modality]
        route = plan.modalities.index(modality) + 1
        documents = documents_of(plan, media.items)
        for item, document, x in zip(media.items, documents, media.projected.items(), strict=True):
            if item.role == "source":
                continue
            rows[item.row].append(x.to(moment.embeds.dtype))
            batch[item.row] += [(document, item.start, order[id(item)], route)] * len(x)
    if not any(batch):
        return None
    most = max(len(facts) for facts in batch)
    nobody = (_NOBODY, 0, -1, 0)
    table = torch.tensor([facts + [nobody] * (most - len(facts)) for facts in batch], device=device)
    width = moment.embeds.shape[-1]
    empty = moment.embeds.new_zeros(0, width)
    padded = torch.nn.utils.rnn.pad_sequence([torch.cat([empty, *given]) for given in rows], batch_first=True)
    return Sides(padded, table[..., 0], table[..., 1], table[..., 2], table[..., 3])


def mix(query: Tensor, key: Tensor, value: Tensor, visible: Tensor) -> Tensor:
    """(B, H, L, d): each slot's visible values by the softmax of its scores; exactly zero where it sees none.

    `query` (B, H, L, d) is scaled; `key` and `value` (B, G, M, d) are shared by H / G neighbouring heads; `visible`
    (B, L, M).
    """
    if key.shape[1] != query.shape[1]:
        key, value = (rows.repeat_interleave(query.shape[1] // key.shape[1], 1) for rows in (key, value))
    seen = visible[:, None]
    scores = (query @ key.transpose(2, 3)).to(torch.promote_types(query.dtype, torch.float32))
    # The least number and not -inf: a slot that sees nothing would get NaN, and so would every gradient.
    weights = scores.masked_fill(~seen, torch.finfo(scores.dtype).min).softmax(-1) * seen
    return weights.to(value.dtype) @ value


def require_projected(name: str, site: Site, inputs: Sequence[str]) -> None:
    """Hold the projected rows of the inputs to the width of the language model.

    Raises:
        ConfigError: another width, or an input that is named twice.
    """
    if len(set(inputs)) < len(inputs):
        raise ConfigError(f"adapter {name!r} reads {', '.join(inputs)}: one of them twice. Name each once.")
    for modality in inputs:
        width = site.sources[modality].projected
        if width != site.width:
            raise ConfigError(
                f"adapter {name!r} reads rows of {modality!r}, which are {width} wide at the end of their projectors; "
                f"the language model is {site.width} wide. End the projectors at that width."
            )
