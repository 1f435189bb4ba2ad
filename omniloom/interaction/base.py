"""The contract of interaction: what acts inside the language model's layers, and what it may know.

An interaction is a set of hooks. It is installed once into a language model, where its modules become children of the
layers they act on; before each pass it may prepare what its hooks need from the media of the plan; in the layers it
reads the facts of the slots that run now. Without hooks a stock model computes what it always did, bit for bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from omniloom.errors import ConfigError
from omniloom.sequence import Auxiliary, Packed, Plan, PlannedItem

__all__ = ["HookContext", "Interaction", "Media", "Moment", "Site", "SlotFacts", "Source"]


@dataclass(frozen=True)
class Source:
    """What a modality can give to an interaction: widths of its encoder's rows, of its taps by layer, of its pooled
    vector (None without one), and of its projected rows."""

    encoded: int
    taps: Mapping[int, int]
    pooled: int | None
    projected: int


@dataclass(frozen=True)
class Media:
    """The input items of one modality in this batch, in the order of the plan, and their rows: `encoded` with taps and
    pooled vectors as the encoder gave them, `projected` at the end of their projectors."""

    items: Sequence[PlannedItem]
    encoded: Packed
    projected: Packed


@dataclass(frozen=True)
class Moment:
    """What an interaction may prepare from, before a pass over a whole plan: `embeds` (B, L, D) are the embeddings
    with all rows in their places; `media` the items by modality, those included that fill no slots."""

    plan: Plan
    embeds: Tensor
    media: Mapping[str, Media]


@dataclass(frozen=True)
class SlotFacts:
    """What hooks know of the slots that run now; (B, L) each, (B, 1) while decoding.

    `route`: 0 for text, 1 + index of the modality for the slots of an item. `document`: index of the document, -1 for
    padding. `slot`: place in the row, counted on while decoding. `is_step`: one new slot a row, the prompt stands in
    the cache. `sides`: by interaction, what its `prepare` made of the plan; it lives as long as the cache does.
    `kept`: by layer, which slots of the prompt ran through it, where some passed it by; it lives as long.
    """

    route: Tensor
    document: Tensor
    slot: Tensor
    is_step: bool = False
    sides: Mapping[str, Any] = field(default_factory=dict)
    kept: dict[Any, Any] = field(default_factory=dict)

    def step(self, route: Tensor, last: Tensor) -> SlotFacts:
        """Facts of one more slot of each row: its (B, 1) route; `last` (B,) is each row's last real slot before."""
        document = self.document.gather(1, last[:, None]) if not self.is_step else self.document
        return replace(self, route=route, document=document, slot=last[:, None] + 1, is_step=True)


@dataclass
class HookContext:
    """The facts of the pass under way, and what hooks add to its loss.

    Losses are kept by name and place, not in a list: a layer that runs again for its gradient must not count twice.
    While `is_plain`, linear layers compute what they would without hooks.
    """

    facts: SlotFacts | None = None
    losses: dict[str, Auxiliary] = field(default_factory=dict)
    is_plain: bool = False

    @contextmanager
    def plain(self) -> Iterator[None]:
        """Leave the hooks of linear layers out."""
        before, self.is_plain = self.is_plain, True
        try:
            yield
        finally:
            self.is_plain = before

    @contextmanager
    def of(self, facts: SlotFacts) -> Iterator[None]:
        """Set the facts for one pass, and take them back."""
        before, self.facts = self.facts, facts
        try:
            yield
        finally:
            self.facts = before


@dataclass(frozen=True)
class Site:
    """Where an interaction is installed.

    `backbone`: offers its layers by number (`num_layers`) and the doors in them: `hook_before`, `hook_after`,
    `hook_attention`, `hook_ffn` (see `omniloom.backbone.base.Backbone`); its linear layers are found by name. `width`:
    D. `modalities`: names in the order of the routes 1, 2, ... `sources`: what each modality can give. `build`: makes a
    part from its spec, `build("projectors", spec, in_dim, out_dim)`, seeded like the model's own.
    """

    backbone: Any
    width: int
    modalities: tuple[str, ...]
    sources: Mapping[str, Source]
    context: HookContext
    build: Callable[..., Any]

    def keep(self, name: str, module: nn.Module) -> None:
        """Hold a module that belongs to no single layer (projections of media, queries) under the interaction's name,
        in the language model beside its layers."""
        if not hasattr(self.backbone, "adapters"):
            self.backbone.adapters = nn.ModuleDict()
        self.backbone.adapters[name] = module


class Interaction(ABC):
    """Options after the star, as every part; its modules live in the language model, not here."""

    needs_slots = False
    """Whether it reads items only at the slots that they fill."""

    @property
    def inputs(self) -> Sequence[str]:
        """Modalities whose media it reads beside the slots; empty: it acts on the slots alone."""
        return ()

    @abstractmethod
    def install(self, name: str, site: Site) -> None:
        """Put its modules into the language model under `name`.

        Raises:
            ConfigError: the model has no such layer, or a modality it names is not there or cannot give what it needs.
        """

    def prepare(self, moment: Moment) -> Any:
        """What its hooks will find in `SlotFacts.sides[name]`; gradients flow through it. None: nothing."""
        return None

    def adopted(self, state: Mapping[str, Tensor], options: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """A state that was trained under other `options` of this type, as one that does the same under its own."""
        return state

    def placed(
        self, name: str, place: str, state: Mapping[str, Tensor], target: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """What was trained apart, at a place inside this one: a branch, an expert.

        `name`: its own, and `target` its tensors. `state`: those of a component of another run, an adapter's under
        `name` too. Returns the tensors of that place, by their names in `target`.

        Raises:
            ConfigError: it has no such place.
            CheckpointError: the state holds something else than belongs there.
        """
        raise ConfigError(f"{name!r} ({type(self).__name__}) has no places; take `of: RUN`, or merge `of: [RUN, RUN]`.")
