"""One slot of an item takes another row of its encoder in layer after layer: the deeper here, the deeper there.

In front of each layer of `taps` the hidden state of the item's slot is replaced by connector(vector of the encoder's
layer). Below the first of them the slot is there, but no other slot reads it, so the language model's lower layers run
as if it were not. Source: eP-ALM (arXiv:2303.11403), which injects class tokens of the last encoder layers into layers
19 to 30 of OPT-6.7B and trains the connectors and a soft prompt alone.

What differs from its code: there the token first appears in the first of these layers, in front of the text, and takes
no position; here it stands where its item stands from the start, and takes a position as every slot does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from omniloom.errors import ConfigError, ShapeError
from omniloom.interaction.base import Interaction, Media, Moment, Site, SlotFacts
from omniloom.interaction.casting import CastLinear
from omniloom.interaction.taps import Placed, items_in_slots, placed, tap_rows, tap_width, taps_of

__all__ = ["HiddenSlots", "InjectedRows", "Injection", "TokenInjection"]


@dataclass(frozen=True)
class Injection:
    """`rows`: layer -> rows and places. `hidden`: (B, L) bool, slots that no other reads below the first layer."""

    rows: Mapping[int, Placed]
    hidden: Tensor


class InjectedRows(nn.Module):
    """Replaces the slots of items in front of one layer."""

    def __init__(self, name: str, layer: int) -> None:
        super().__init__()
        self.name, self.layer = name, layer

    def forward(self, hidden: Tensor, facts: SlotFacts | None) -> Tensor:
        given: Injection | None = None if facts is None or facts.is_step else facts.sides.get(self.name)
        if facts is None or given is None:
            return hidden
        at = given.rows[self.layer]
        return hidden.index_put(at.places(facts), at.rows.to(hidden.dtype))


class HiddenSlots(nn.Module):
    """Lets no slot read the slots of items but each itself."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, slots: int, keys: int, facts: SlotFacts | None) -> Tensor | None:
        given: Injection | None = None if facts is None else facts.sides.get(self.name)
        if facts is None or given is None:
            return None
        shown = nn.functional.pad(~given.hidden, (0, keys - given.hidden.shape[1]), value=True)[:, None]
        if not facts.is_step:
            # Each slot reads itself: one that read nothing would be no number, and so would all that read it.
            shown = shown | torch.eye(slots, keys, dtype=torch.bool, device=shown.device)
        return shown[:, None]


class TokenInjection(Interaction):
    """Vectors of an encoder's layers in the one slot of each item, layer by layer.

    Args:
        inputs: modalities whose items are injected; each item fills exactly one slot.
        taps: layer of the language model, from 0 -> layer of the encoder as its `taps` name it, or "pooled" for its
            pooled vector. Between two such layers the slot runs on by itself.
        vector: of the rows that an encoder gives for a layer, the "first" (its class token, where rows begin with it)
            or the "mean".
        shared: one connector for all layers of a modality.
    Raises:
        ConfigError: no inputs, no taps, or an unknown `vector`.
    """

    inputs: Sequence[str] = ()
    needs_slots = True

    def __init__(
        self,
        *,
        inputs: Sequence[str],
        taps: Mapping[int, int | str],
        vector: Literal["first", "mean"] = "mean",
        shared: bool = False,
    ) -> None:
        if not inputs:
            raise ConfigError("token injection needs `inputs`, the modalities that it injects.")
        if vector not in ("first", "mean"):
            raise ConfigError(f"token injection takes the `vector` {vector!r}; expected 'first' or 'mean'.")
        self.inputs, self.taps, self.vector, self.shared = list(inputs), taps, vector, shared

    def install(self, name: str, site: Site) -> None:
        """Make the connectors, and put a hook in front of every layer.

        Raises:
            ConfigError: a layer that the language model or an encoder does not have, or layers of several widths that
                would share a connector.
        """
        self._name = name
        self._layers = taps_of(name, self.taps, site.backbone.num_layers)
        connectors = nn.ModuleDict()
        for modality in self.inputs:
            widths = {layer: self._width(name, site, modality, tap) for layer, tap in self._layers.items()}
            if self.shared and len(set(widths.values())) > 1:
                raise ConfigError(
                    f"adapter {name!r} shares a connector between vectors of widths {sorted(set(widths.values()))} of "
                    f"{modality!r}. Set shared: false."
                )
            wanted = {"shared": next(iter(widths.values()))} if self.shared else {str(k): v for k, v in widths.items()}
            connectors[modality] = nn.ModuleDict({key: CastLinear(width, site.width) for key, width in wanted.items()})
        site.keep(name, connectors.to(site.backbone.embedding_table().device))
        self._connectors = connectors
        for layer in self._layers:
            site.backbone.hook_before(layer, name, InjectedRows(name, layer), site.context)
        for layer in range(min(self._layers)):
            site.backbone.hook_visible(layer, name, HiddenSlots(name), site.context)

    def _width(self, name: str, site: Site, modality: str, tap: Any) -> int:
        if tap != "pooled":
            return tap_width(name, site, modality, tap)
        width = site.sources[modality].pooled
        if width is None:
            raise ConfigError(f"adapter {name!r} reads the pooled vector of {modality!r}, whose encoder gives none.")
        return width

    def prepare(self, moment: Moment) -> Injection | None:
        """Rows and places of every layer.

        Raises:
            ShapeError: an item fills more than one slot.
        """
        found: dict[int, list[tuple[int, Tensor]]] = {}
        hidden = torch.zeros(moment.plan.shape, dtype=torch.bool, device=moment.embeds.device)
        for modality in self.inputs:
            if modality not in moment.media:
                continue
            items = items_in_slots(moment, modality)
            for _, _, item in items:
                if item.length != 1:
                    raise ShapeError(
                        f"adapter {self._name!r} injects one row at a time, but an item of {modality!r} fills "
                        f"{item.length} slots. Pool its projected rows to one."
                    )
                hidden[item.row, item.start] = True
            for layer, tap in self._layers.items():
                connector: Any = self._connectors[modality]["shared" if self.shared else str(layer)]  # type: ignore[index]
                rows = connector(self._vectors(moment.media[modality], modality, tap))
                found.setdefault(layer, []).extend((number, rows[index : index + 1]) for index, number, _ in items)
        if not hidden.any():
            return None
        return Injection({layer: placed(moment, parts) for layer, parts in found.items()}, hidden)

    def _vectors(self, media: Media, modality: str, tap: Any) -> Tensor:
        """(items, E)."""
        if tap != "pooled":
            rows = tap_rows(media, modality, tap).items()
            return torch.stack([item[0] if self.vector == "first" else item.mean(0) for item in rows])
        if media.encoded.pooled is None:
            raise ShapeError(f"items of {modality!r} come without their pooled vector. Encode them anew.")
        return media.encoded.pooled
