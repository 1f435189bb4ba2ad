"""The table of modalities in a run file: how each comes in and goes out, and what is fused on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from omniloom.config.kinds import Chain, Count, Name, PartSpec, Strict, Word

__all__ = [
    "FuserConfig",
    "InConfig",
    "ModalityConfig",
    "OutConfig",
    "SlotsConfig",
    "TimestampsConfig",
    "component_of",
]


class SlotsConfig(Strict):
    """How many slots one item may fill, and what happens to an item that needs more."""

    max: Count
    over: Literal["refuse", "resample"] = "refuse"


class TimestampsConfig(Strict):
    """Time as text before an item's rows. `format`: with the seconds, as in "<{:.1f}s>"; at most one in `every_s`."""

    format: Word
    every_s: Annotated[float, Field(ge=0)] = 0.0

    @field_validator("format")
    @classmethod
    def _formats(cls, value: str) -> str:
        try:
            if value.format(1.0) == value.format(1000.0):
                raise ValueError("every time would read alike")
        except (ValueError, IndexError, KeyError) as error:
            raise ValueError(f"must be a text with one number in it, such as '<{{:.1f}}s>' ({error})") from None
        return value


def _links(projector: Any) -> list[tuple[str, str | dict[str, Any]]]:
    """(suffix of the component's name, spec) of every projector: no suffix for one, 1, 2, ... along a chain."""
    if projector is None:
        return []
    if not isinstance(projector, list):
        return [("", projector)]
    return [(str(index + 1), spec) for index, spec in enumerate(projector)]


class InConfig(Strict):
    """How a modality comes in: processor, encoder, projector (a list is a chain; null: none, where the encoder's rows
    have the language model's width or a fuser takes them as they are), slots per item (null: no limit)."""

    processor: PartSpec
    encoder: PartSpec
    projector: Chain | None = "linear"
    slots: SlotsConfig | None = None
    insert: Literal["input", "inject", "both"] = "input"
    """Its rows fill slots at the input, are read inside the layers by an adapter, or both."""
    attention: Literal["causal", "full", "frames"] = "causal"
    """How its slots see one another: in reading order; all of them; all of one frame. Where times as text or rows of
    another item of the clip stand between them, only those of one piece."""
    timestamps: TimestampsConfig | None = None
    windows: bool = False
    """Media longer than the processor takes become several items, one behind the other."""

    @property
    def links(self) -> list[tuple[str, str | dict[str, Any]]]:
        """(suffix of the component's name, spec) of every projector: no suffix for one, 1, 2, ... along a chain."""
        return _links(self.projector)


class OutConfig(Strict):
    """How a modality goes out: learned, as codes of a codec in the vocabulary; or by a generator that reads text."""

    codec: PartSpec | None = None
    layout: PartSpec | None = None
    generator: PartSpec | None = None

    @model_validator(mode="before")
    @classmethod
    def _default_layout(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("codec") is not None and data.get("layout") is None:
            return {**data, "layout": "flattened"}
        return data

    @model_validator(mode="after")
    def _one_way(self) -> OutConfig:
        if (self.codec is None) == (self.generator is None):
            raise ValueError("needs exactly one of `codec` (learned output) and `generator` (text-based output)")
        if self.layout is not None and self.codec is None:
            raise ValueError("`layout` places the codes of a codec, and there is no codec")
        return self


class ModalityConfig(Strict):
    """One row of the table of modalities. `markers`: text before and after the slots of an item. `split`: instead of an
    input of its own, an item becomes items of these modalities, of one clip: a video its frames and its sound."""

    payload: Name
    markers: Annotated[tuple[str, str], Field(strict=False)]
    in_: InConfig | None = Field(default=None, alias="in")
    out: OutConfig | None = None
    split: Annotated[list[Name], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _has_a_way(self) -> ModalityConfig:
        if self.in_ is None and self.out is None and self.split is None:
            raise ValueError("needs `in`, `out`, or both; or `split`")
        if self.in_ is not None and self.split is not None:
            raise ValueError("has `in` and `split`; an item comes in by itself, or split into others")
        return self


class FuserConfig(Strict):
    """A part that makes items of several modalities in one turn into one. Further keys are options of the part.

    `when`: all of the inputs must be there, or any. `insert`: its rows stand where the first or the last of them stood,
    or fill no slots and are read inside the layers by an adapter.
    `keep`: inputs that keep their own slots beside. `projector`: a part or a chain behind the fuser; null: none.
    """

    model_config = ConfigDict(extra="allow")

    type: Word
    inputs: Annotated[list[Name], Field(min_length=1)]
    when: Literal["all", "any"] = "all"
    insert: Literal["first", "last", "inject"] = "first"
    keep: list[Name] = Field(default_factory=list)
    projector: Chain | None = None
    markers: Annotated[tuple[str, str], Field(strict=False)] = ("", "")

    @property
    def spec(self) -> dict[str, Any]:
        """The fuser's spec, `{"type": ..., option: value}`."""
        return {"type": self.type, **(self.model_extra or {})}

    @property
    def links(self) -> list[tuple[str, str | dict[str, Any]]]:
        """(suffix of the component's name, spec) of every projector behind it."""
        return _links(self.projector)


def component_of(spec: Any) -> str | None:
    """The name in `{component: NAME}`; None for any other spec."""
    return spec["component"] if isinstance(spec, Mapping) and "component" in spec else None
