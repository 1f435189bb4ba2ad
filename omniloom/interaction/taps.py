"""Rows of an encoder's inner layers, brought to the slots of their items inside the language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from omniloom.errors import ConfigError, ShapeError
from omniloom.interaction.base import Media, Moment, Site, SlotFacts
from omniloom.sequence import Packed, PlannedItem

__all__ = ["Placed", "items_in_slots", "placed", "tap_rows", "tap_width", "taps_of"]


@dataclass(frozen=True)
class Placed:
    """Rows (S, D) and their places: `row` and `slot`, (S,) each."""

    rows: Tensor
    row: Tensor
    slot: Tensor

    def places(self, facts: SlotFacts) -> tuple[Tensor, Tensor]:
        """Where they are among the slots that run: all of a plan, or those of one side of an encoder-decoder."""
        runs = facts.slot[self.row]
        if runs.shape[1] > int(self.slot.max()) and torch.equal(runs.gather(1, self.slot[:, None])[:, 0], self.slot):
            return self.row, self.slot
        real = facts.document[self.row] >= 0
        return self.row, ((runs == self.slot[:, None]) & real).long().argmax(1)


def taps_of(name: str, taps: Mapping[Any, Any], count: int) -> dict[int, Any]:
    """Layer of the language model -> tap, in order of the layers.

    Raises:
        ConfigError: no taps, or a layer that is not there.
    """
    if not isinstance(taps, Mapping) or not taps:
        raise ConfigError(f"adapter {name!r} needs `taps`, layers of the language model mapped to encoder layers.")
    found = {}
    for key, tap in taps.items():
        layer = int(key) if str(key).isdecimal() else -1  # keys of a run file are text
        if not 0 <= layer < count:
            raise ConfigError(
                f"adapter {name!r} has a tap for layer {key!s}; the language model has {count} layers that can be "
                "hooked, counted from 0."
            )
        found[layer] = tap
    return dict(sorted(found.items()))


def tap_width(name: str, site: Site, modality: str, tap: int) -> int:
    """How wide an encoder's rows of an inner layer are.

    Raises:
        ConfigError: its encoder does not give that layer.
    """
    known = site.sources[modality].taps
    if tap not in known:
        raise ConfigError(
            f"adapter {name!r} reads layer {tap} of the encoder of {modality!r}, which gives: "
            f"{', '.join(map(str, known)) or 'no inner layers'}. List it in its `taps`, or take another encoder."
        )
    return known[tap]


def tap_rows(media: Media, modality: str, tap: int) -> Packed:
    """The rows of an inner layer of all items.

    Raises:
        ShapeError: the items came without them.
    """
    if tap not in media.encoded.taps:
        raise ShapeError(
            f"items of {modality!r} come without rows of layer {tap} of their encoder: they were kept without taps, or "
            "projected before they were planned. Encode them anew."
        )
    return Packed(media.encoded.taps[tap], media.encoded.shapes)


def items_in_slots(moment: Moment, modality: str) -> list[tuple[int, int, PlannedItem]]:
    """(number among the items of the modality, number in the plan, item) of those that fill slots."""
    numbers = {id(item): number for number, item in enumerate(moment.plan.items)}
    found = enumerate(moment.media[modality].items)
    return [(index, numbers[id(item)], item) for index, item in found if item.role == "in"]


def placed(moment: Moment, parts: Sequence[tuple[int, Tensor]]) -> Placed:
    """Rows of items (number in the plan, (length, D) rows) at the slots of each, in their order."""
    rows, slots = [], []
    for number, _ in parts:
        where = moment.plan.slots_of(number)
        slots.append(where)
        rows.append(torch.full_like(where, moment.plan.items[number].row))
    return Placed(torch.cat([given for _, given in parts]), torch.cat(rows), torch.cat(slots))
