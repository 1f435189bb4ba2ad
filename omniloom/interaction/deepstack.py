"""Inner layers of an encoder added to the slots of its items behind the first layers of the language model.

    h_l[slots of an item] += project_l(rows of the encoder's layer taps[l])

The first rows fill the slots at the input; finer or coarser ones of the same places follow layer by layer, without a
slot more.

Source: DeepStack (arXiv:2406.04334); as in Qwen3-VL and Qwen3-Omni (arXiv:2509.17765), whose three projectors read
layers 8, 16 and 24 of the vision tower and add to the first three layers of the language model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from omniloom.errors import ConfigError, ShapeError
from omniloom.interaction.base import Interaction, Moment, Site, SlotFacts
from omniloom.interaction.taps import Placed, items_in_slots, placed, tap_rows, tap_width, taps_of
from omniloom.sequence import Context, Packed

__all__ = ["DeepStack", "StackedRows"]


class StackedRows(nn.Module):
    """Adds one layer's projected rows at their slots; with a gate, by tanh of it."""

    def __init__(self, name: str, layer: int, gated: bool) -> None:
        super().__init__()
        self.name, self.layer = name, layer
        if gated:
            self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, hidden: Tensor, facts: SlotFacts | None) -> Tensor:
        sides: Any = None if facts is None or facts.is_step else facts.sides.get(self.name)
        if facts is None or not sides or self.layer not in sides:
            return hidden
        given: Placed = sides[self.layer]
        rows = given.rows if not hasattr(self, "gate") else given.rows * self.gate.tanh().to(given.rows.dtype)
        return hidden.index_put(given.places(facts), rows.to(hidden.dtype), accumulate=True)


class DeepStack(Interaction):
    """Inner layers of encoders added behind layers of the language model.

    Args:
        inputs: modalities whose items are stacked; they fill slots.
        taps: layer of the language model, from 0 -> layer of the encoder, as its `taps` name it.
        projector: spec of what brings a tap to the language model's width, or a list that is a chain; each modality
            and layer has its own. It gives as many rows an item as the projectors of its modality.
        gated: rows are multiplied by tanh of a gate a layer that begins at zero, so that a new adapter changes nothing.
            Published models have none: they train the projectors before the language model relies on them.
    Raises:
        ConfigError: no inputs or no taps.
    """

    inputs: Sequence[str] = ()
    needs_slots = True

    def __init__(
        self, *, inputs: Sequence[str], taps: Mapping[int, int], projector: Any = "linear", gated: bool = False
    ) -> None:
        if not inputs:
            raise ConfigError("deepstack needs `inputs`, the modalities whose layers it stacks.")
        self.inputs, self.taps, self.projector, self.gated = list(inputs), taps, projector, gated

    def install(self, name: str, site: Site) -> None:
        """Build the projectors, and put one hook behind every layer.

        Raises:
            ConfigError: a layer that the language model or an encoder does not have, or projectors of another width.
        """
        self._name = name
        self._layers = taps_of(name, self.taps, site.backbone.num_layers)
        projectors = nn.ModuleDict()
        for modality in self.inputs:
            chains = {}
            for layer, tap in self._layers.items():
                chains[str(layer)] = self._chain(name, site, modality, tap_width(name, site, modality, tap))
            projectors[modality] = nn.ModuleDict(chains)
        site.keep(name, projectors.to(site.backbone.embedding_table().device))
        self._projectors = projectors
        for layer in self._layers:
            site.backbone.hook_after(layer, name, StackedRows(name, layer, self.gated), site.context)

    def _chain(self, name: str, site: Site, modality: str, width: int) -> nn.ModuleList:
        specs = self.projector if isinstance(self.projector, list) else [self.projector]
        chain = nn.ModuleList()
        for spec in specs:
            part = site.build("projectors", spec, width, site.width)
            part.serve(modality)
            chain.append(part)
            width = part.out_dim
        if width != site.width:
            raise ConfigError(
                f"the projectors of adapter {name!r} end at width {width}, the language model takes {site.width}. "
                "End the chain with one that projects."
            )
        return chain

    def prepare(self, moment: Moment) -> dict[int, Placed] | None:
        """Layer -> rows and places.

        Raises:
            ShapeError: a projector gave another number of rows than the item has.
        """
        found: dict[int, list[tuple[int, Tensor]]] = {}
        for modality in self.inputs:
            if modality not in moment.media:
                continue
            items = items_in_slots(moment, modality)
            for layer, tap in self._layers.items():
                rows = list(self._projected(moment, modality, layer, tap).items())
                for index, number, item in items:
                    if len(rows[index]) != item.rows:
                        raise ShapeError(
                            f"adapter {self._name!r}: layer {tap} of the encoder of {modality!r} became "
                            f"{len(rows[index])} rows for sample {item.sample!r}, whose item has {item.rows}. Give its "
                            "projector the merging that the modality's own has."
                        )
                    kept = rows[index] if item.keep is None else rows[index][list(item.keep)]
                    found.setdefault(layer, []).append((number, kept))
        return {layer: placed(moment, parts) for layer, parts in found.items()} or None

    def _projected(self, moment: Moment, modality: str, layer: int, tap: int) -> Packed:
        media = moment.media[modality]
        packed = tap_rows(media, modality, tap)
        context = Context(modality, instructions=[item.instruction for item in media.items])
        for part in self._projectors[modality][str(layer)]:  # type: ignore[index, union-attr]
            packed = part(packed, context)
        return packed
