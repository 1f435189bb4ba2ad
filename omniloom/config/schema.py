"""What a run file may hold: one pydantic model per mapping, keys in the order they are written out.

The parts' own options are not here: a part's signature is their schema (`omniloom.config.parts.check_parts`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    field_validator,
    model_validator,
)

__all__ = [
    "BackboneConfig",
    "ComponentConfig",
    "ContextConfig",
    "EvaluationConfig",
    "FuserConfig",
    "InConfig",
    "ModalityConfig",
    "OutConfig",
    "PartSpec",
    "RunConfig",
    "SlotsConfig",
    "StageConfig",
    "TimestampsConfig",
    "WarmStartConfig",
    "component_of",
    "dotted",
    "known_keys",
]


def _part(value: Any) -> Any:
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, Mapping):
        keys = [key for key in ("type", "component") if key in value]
        if len(keys) == 1 and isinstance(value[keys[0]], str) and value[keys[0]].strip():
            if keys == ["component"] and len(value) > 1:
                raise ValueError("a named component takes no options here; set them under `components`")
            return dict(value)
    raise ValueError("must be a part's name, or a mapping with `type: NAME` and options, or `component: NAME`")


def _own_part(value: Any) -> Any:
    if isinstance(value, Mapping) and isinstance(value.get("type"), str) and value["type"].strip():
        return dict(value)
    raise ValueError("must be a mapping with `type: NAME` and options")


def _chain(value: Any) -> Any:
    if isinstance(value, list):
        if not value:
            raise ValueError("a chain of projectors needs at least one part")
        return [_part(item) for item in value]
    return _part(value)


def _name(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", value):
        raise ValueError("must be a lower-case identifier: a letter, then letters, digits or `_`, at most 32 in all")
    return value


def _learning_rate(value: Any) -> Any:
    def positive(number: Any) -> bool:
        return isinstance(number, (int, float)) and not isinstance(number, bool) and 0 < number <= 100

    if positive(value):
        return float(value)
    if isinstance(value, Mapping) and value and all(positive(item) for item in value.values()):
        return {key: float(item) for key, item in value.items()}
    raise ValueError("must be a positive number, or a mapping of globs to positive numbers")


PartSpec = Annotated[str | dict[str, Any], BeforeValidator(_part)]
"""A part: its name, `{type: NAME, option: value}`, or `{component: NAME}`."""

_OwnPart = Annotated[dict[str, Any], BeforeValidator(_own_part)]
_Chain = Annotated[str | dict[str, Any] | list[str | dict[str, Any]], BeforeValidator(_chain)]
_Name = Annotated[str, AfterValidator(_name)]
_Count = Annotated[StrictInt, Field(ge=1, le=10**12)]
_Natural = Annotated[StrictInt, Field(ge=0, le=10**12)]
_Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True, populate_by_name=True
    )


class BackboneConfig(_Strict):
    """The language model. Further keys are options of its part."""

    model_config = ConfigDict(extra="allow")

    type: _Text = "causal_lm"
    id: _Text
    """Hub id, folder, or `scheme:name` of the assets table."""
    dtype: Literal["bfloat16", "float32", "float64"] = "float32"
    template: Literal["chat", "plain"] = "chat"
    """`chat`: the tokenizer's own chat template; `plain`: roles as plain text, for models without one."""
    system: str | None = None
    """System prompt put before every conversation that has none; null: none is put there."""


class ComponentConfig(_Strict):
    """A part named once, for use by several modalities. Further keys are options of the part."""

    model_config = ConfigDict(extra="allow")

    room: Literal["encoders", "projectors", "codecs", "generators"]
    type: _Text

    @property
    def spec(self) -> dict[str, Any]:
        """The part's spec, `{"type": ..., option: value}`."""
        return {"type": self.type, **(self.model_extra or {})}


class SlotsConfig(_Strict):
    """How many slots one item may fill, and what happens to an item that needs more."""

    max: _Count
    over: Literal["refuse", "resample"] = "refuse"


class ContextConfig(_Strict):
    """How one conversation is laid out: how many slots it may fill, where they stand, how timed items interleave."""

    max: _Count | None = None
    over: Literal["refuse", "start", "end"] = "refuse"
    """Refuse a longer one, or cut whole segments at its start (after the opening) or its end; cuts are counted."""
    positions: PartSpec = "sequential"
    interleave: PartSpec = "chunks"
    """The order of rows of one clip's items."""


class TimestampsConfig(_Strict):
    """Time as text before an item's rows. `format`: with the seconds, as in "<{:.1f}s>"; at most one in `every_s`."""

    format: _Text
    every_s: Annotated[float, Field(ge=0)] = 0.0

    @field_validator("format")
    @classmethod
    def _formats(cls, value: str) -> str:
        try:
            value.format(1.5)
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


class InConfig(_Strict):
    """How a modality comes in: processor, encoder, projector (a list is a chain), slots per item (null: no limit)."""

    processor: PartSpec
    encoder: PartSpec
    projector: _Chain = "linear"
    slots: SlotsConfig | None = None
    insert: Literal["input", "inject", "both"] = "input"
    """Its rows fill slots at the input, are read inside the layers by an adapter, or both."""
    attention: Literal["causal", "full", "frames"] = "causal"
    """How its slots see one another: in reading order; all of them; all of one frame."""
    timestamps: TimestampsConfig | None = None
    windows: bool = False
    """Media longer than the processor takes become several items, one behind the other."""

    @property
    def links(self) -> list[tuple[str, str | dict[str, Any]]]:
        """(suffix of the component's name, spec) of every projector: no suffix for one, 1, 2, ... along a chain."""
        return _links(self.projector)


class OutConfig(_Strict):
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


class ModalityConfig(_Strict):
    """One row of the table of modalities. `markers`: text before and after the slots of an item. `split`: instead of an
    input of its own, an item becomes items of these modalities, of one clip: a video its frames and its sound."""

    payload: _Name
    markers: Annotated[tuple[str, str], Field(strict=False)]
    in_: InConfig | None = Field(default=None, alias="in")
    out: OutConfig | None = None
    split: Annotated[list[_Name], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _has_a_way(self) -> ModalityConfig:
        if self.in_ is None and self.out is None and self.split is None:
            raise ValueError("needs `in`, `out`, or both; or `split`")
        if self.in_ is not None and self.split is not None:
            raise ValueError("has `in` and `split`; an item comes in by itself, or split into others")
        return self


class FuserConfig(_Strict):
    """A part that makes items of several modalities in one turn into one. Further keys are options of the part.

    `when`: all of the inputs must be there, or any. `insert`: its rows stand where the first or the last of them stood.
    `keep`: inputs that keep their own slots beside. `projector`: a part or a chain behind the fuser; null: none.
    """

    model_config = ConfigDict(extra="allow")

    type: _Text
    inputs: Annotated[list[_Name], Field(min_length=1)]
    when: Literal["all", "any"] = "all"
    insert: Literal["first", "last"] = "first"
    keep: list[_Name] = []
    projector: _Chain | None = None
    markers: Annotated[tuple[str, str], Field(strict=False)] = ("", "")

    @property
    def spec(self) -> dict[str, Any]:
        """The fuser's spec, `{"type": ..., option: value}`."""
        return {"type": self.type, **(self.model_extra or {})}

    @property
    def links(self) -> list[tuple[str, str | dict[str, Any]]]:
        """(suffix of the component's name, spec) of every projector behind it."""
        return _links(self.projector)


class WarmStartConfig(_Strict):
    """Alignment of the trained projectors to text embeddings, before the language model passes."""

    steps: _Count = 300
    batch: _Count = 64
    lr: Annotated[float, Field(gt=0, le=100)] = 1e-3


class StageConfig(_Strict):
    """One stage of training."""

    name: _Name
    of: _Text = "model"
    """`model`, or the component that trains alone."""
    train: Annotated[list[_Text], Field(min_length=1)]
    """Globs over component names, or over full parameter names `component.parameter`."""
    parameters: _Natural | None = None
    """How many parameters that must be; null: not recorded yet."""
    data: Annotated[dict[str, Annotated[float, Field(ge=0)]], Field(min_length=1)]
    """Mixture: source -> weight."""
    steps: _Count | None = None
    minutes: Annotated[float, Field(gt=0, le=10**6)] | None = None
    """Instead of steps: measured once, then written into the resolved run as steps."""
    batch: _Count = 16
    lr: Annotated[float | dict[str, float], BeforeValidator(_learning_rate)] = 1e-3
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of the steps."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Annotated[float, Field(gt=0)] = 1.0
    warm_start: WarmStartConfig | None = None
    pack: _Natural = 0
    """0: pad, sorted by length; else slots of a packed row."""
    save_every: _Natural = 50
    """Steps between checkpoints; 0: at the end only."""
    sample_every: _Natural = 0
    """Steps between samples of the model's own answers; 0: none."""
    overfit: bool = False
    """Train on the first batch only, to see whether anything can be learned."""

    @model_validator(mode="after")
    def _one_length(self) -> StageConfig:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("needs exactly one of `steps` and `minutes`")
        if not any(self.data.values()):
            raise ValueError("the weights of `data` are all 0; give at least one source a positive weight")
        return self


class EvaluationConfig(_Strict):
    """One task of the evaluation. `chance`: the score of guessing; null: from the answers that occur."""

    data: _Text
    metric: _Name = "exact"
    limit: _Count | None = None
    """Samples at most; null: all."""
    probes: list[Literal["blind", "shuffled", "permuted", "alone"]] = ["blind", "shuffled"]
    """Runs without the media, with the media of a sample that expects another answer, with any other sample's media,
    and with each modality of several alone."""
    max_new: _Count = 16
    """Tokens an answer may have."""
    judge: _Text | None = None
    """For generated items: the data source whose real items a classifier is fitted on; it names what was generated."""
    chance: Annotated[float, Field(ge=0, le=1)] | None = None


class RunConfig(_Strict):
    """A run: model, data, stages and evaluation."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    seed: Annotated[StrictInt, Field(ge=0, lt=2**32)] = 0
    threads: _Count | None = None
    """Threads of torch; null: all cores, and the resolved run tells how many that were."""
    backbone: BackboneConfig
    context: ContextConfig = ContextConfig()
    adapters: dict[_Name, _OwnPart] = {}
    components: dict[_Name, ComponentConfig] = {}
    modalities: dict[_Name, ModalityConfig]
    fusers: dict[_Name, FuserConfig] = {}
    cache: _Text | None = None
    """Folder of cached rows of frozen encoders, which runs may share; null: the run's own, for training only."""
    init: dict[_Text, _Text] = {}
    """Weights to begin with: glob over components -> the run folder that they come from."""
    data: dict[_Name, _OwnPart] = {}
    stages: list[StageConfig] = []
    evaluation: dict[_Name, EvaluationConfig] = {}

    @model_validator(mode="before")
    @classmethod
    def _default_markers(cls, data: Any) -> Any:
        rows = data.get("modalities") if isinstance(data, Mapping) else None
        if not isinstance(rows, Mapping):
            return data
        named = {
            name: {"markers": [f"<{name}>", f"</{name}>"], **row} if isinstance(row, Mapping) else row
            for name, row in rows.items()
        }
        return {**data, "modalities": named}

    @property
    def component_names(self) -> tuple[str, ...]:
        """Everything that `train` globs and a stage's `of` may name, in the order of the model.

        A row's own parts are `MODALITY/encoder`, `/projector`, `/codec`, `/generator`, the links of a chain
        `/projector1` and so on; shared ones have their own name. `vocab` is there when codes are in the vocabulary.
        """
        names = ["backbone"]
        has_codes = False
        for modality, row in self.modalities.items():
            places: dict[str, Any] = {}
            if row.in_ is not None:
                places = {"encoder": row.in_.encoder} | {f"projector{suffix}": spec for suffix, spec in row.in_.links}
            places |= {"codec": row.out.codec, "generator": row.out.generator} if row.out is not None else {}
            own = [place for place, spec in places.items() if spec is not None and component_of(spec) is None]
            names += [f"{modality}/{place}" for place in own]
            has_codes |= row.out is not None and row.out.codec is not None
        for fuser, config in self.fusers.items():
            names += [fuser, *(f"{fuser}/projector{end}" for end, spec in config.links if component_of(spec) is None)]
        return (*names, *(["vocab"] if has_codes else []), *self.components, *self.adapters)


def component_of(spec: Any) -> str | None:
    """The name in `{component: NAME}`; None for any other spec."""
    return spec["component"] if isinstance(spec, Mapping) and "component" in spec else None


def dotted(path: tuple[str | int, ...]) -> str:
    """A place in a run file as it is written after `--set`."""
    return ".".join(str(key) for key in path)


def known_keys(path: tuple[str | int, ...]) -> list[str]:
    """The keys that a mapping of the run file may have at this path, as they are written; empty where any may be."""
    kind: Any = RunConfig
    for key in path:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            by_alias = {field.alias or name: field for name, field in kind.model_fields.items()}
            if key not in by_alias:
                return []
            kind = _bare(by_alias[str(key)].annotation)
        elif get_origin(kind) in (dict, list):
            kind = _bare(get_args(kind)[-1])
        else:
            return []
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)) or kind.model_config.get("extra") == "allow":
        return []
    keys = [field.alias or name for name, field in kind.model_fields.items()]
    return ["extends", *keys] if kind is RunConfig else ["use", *keys] if kind is ModalityConfig else keys


def _bare(kind: Any) -> Any:
    while get_origin(kind) in (Annotated, Union, UnionType):
        args = [arg for arg in get_args(kind) if arg is not type(None)]
        kind = args[0]
    return kind
