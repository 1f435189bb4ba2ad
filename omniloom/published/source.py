"""What a published multimodal model tells of itself, and what it becomes here.

A family (LLaVA, Qwen-VL ...) is a function from a `Source` to a `Published`: rows of the table of modalities, whose
parts are ordinary ones, and for every part that is not loaded by its own id, which tensors of the file it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from omniloom.backbone.stock import load_tokenizer
from omniloom.errors import ConfigError, did_you_mean
from omniloom.layers.hub_loading import load_config
from omniloom.planner.take_apart import around_media
from omniloom.registry import find, names

__all__ = ["Part", "Published", "Row", "Source", "published_model"]


@dataclass(frozen=True)
class Part:
    """A part's spec. `tensors`: its parameter, or the module that holds some -> their name in the file, behind whatever
    prefix. `shared`: the name of a component that several rows use."""

    spec: Mapping[str, Any]
    tensors: Mapping[str, str] = field(default_factory=dict)
    shared: str | None = None

    @property
    def place(self) -> dict[str, Any]:
        """What stands in a row of the table."""
        return {"component": self.shared} if self.shared else dict(self.spec)


@dataclass(frozen=True)
class Row:
    """A modality that comes in. `further`: other keys of its `in`; `split`: instead of parts, what it is taken apart
    into."""

    name: str
    payload: str
    markers: tuple[str, str] = ("", "")
    processor: Mapping[str, Any] = field(default_factory=dict)
    encoder: Part | None = None
    projectors: Sequence[Part] = ()
    further: Mapping[str, Any] = field(default_factory=dict)
    split: Sequence[str] = ()

    def values(self) -> dict[str, Any]:
        """The row as a run file holds it."""
        values: dict[str, Any] = {"payload": self.payload, "markers": list(self.markers)}
        if self.encoder is None:
            return {**values, "split": list(self.split)}
        links = [part.place for part in self.projectors]
        inside = {"processor": dict(self.processor), "encoder": self.encoder.place}
        return {**values, "in": {**inside, "projector": links[0] if len(links) == 1 else links or None, **self.further}}

    def components(self) -> dict[str, Part]:
        """Component -> its part, for every one that takes tensors of the file."""
        ends = [""] if len(self.projectors) == 1 else [str(index + 1) for index in range(len(self.projectors))]
        found = {
            part.shared or f"{self.name}/projector{end}": part for end, part in zip(ends, self.projectors, strict=True)
        }
        return {name: part for name, part in found.items() if part.tensors}


@dataclass(frozen=True)
class Published:
    """A published model as a run: its rows, and further keys of `backbone` and `context`."""

    rows: Sequence[Row]
    backbone: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)

    def values(self, backbone: Mapping[str, Any]) -> dict[str, Any]:
        """The run file, without its name."""
        shared: dict[str, Any] = {}
        for row in self.rows:
            for room, part in [("encoders", row.encoder), *(("projectors", link) for link in row.projectors)]:
                if part is not None and part.shared:
                    shared[part.shared] = {"room": room, **part.spec}
        values = {"backbone": {**backbone, **self.backbone}, "context": dict(self.context), "components": shared}
        return {**values, "modalities": {row.name: row.values() for row in self.rows}}

    def components(self) -> dict[str, Part]:
        """Component -> its part, for every one that takes tensors of the file."""
        return {name: part for row in self.rows for name, part in row.components().items()}


@dataclass(frozen=True)
class Source:
    """A published model by hub id or folder. `reference`: how a run file names it."""

    id: str
    revision: str | None = None
    reference: str = ""

    @cached_property
    def config(self) -> Any:
        """Its configuration; of a model of a thinker and a talker the thinker's."""
        config = load_config(self.id, self.revision)
        return getattr(config, "thinker_config", config)

    @cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer, with the chat template."""
        return load_tokenizer(self.id, revision=self.revision)

    def named(self, kind: str, **options: Any) -> dict[str, Any]:
        """The spec of a part of this type that is loaded by this model's id."""
        pinned = {"revision": self.revision} if self.revision else {}
        return {"type": kind, "id": self.reference or self.id, **pinned, **options}

    def markers(self, kind: str, placeholder: int) -> tuple[str, str]:
        """What the chat template puts around an item of a kind, whose place the token `placeholder` holds."""
        return around_media(self.tokenizer, kind, str(self.tokenizer.convert_ids_to_tokens(placeholder)))


def published_model(source: Source) -> Published:
    """A published model as rows of parts; the table of `published` says which function tells them.

    Raises:
        ConfigError: no family known here is of its type.
    """
    kind = str(source.config.model_type)
    known = names("published")
    if kind not in known:
        raise ConfigError(
            f"{source.id!r} is a {kind!r}, which cannot be taken over as a whole.{did_you_mean(kind, known)} "
            "Its language model and its towers can still be named in a run file, part by part."
        )
    family: Callable[[Source], Published] = find("published", kind)
    return family(source)
