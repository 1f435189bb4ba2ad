"""What a run file may hold: one pydantic model per mapping, keys in the order they are written out.

The parts' own options are not here: a part's signature is their schema (`omniloom.config.parts.check_parts`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, StrictInt, model_validator

from omniloom.config.kinds import Count, Name, Natural, OwnPart, PartSpec, Rate, Runs, Strict, Word
from omniloom.config.table import FuserConfig, ModalityConfig, component_of

__all__ = [
    "BackboneConfig",
    "ComponentConfig",
    "ContextConfig",
    "EvaluationConfig",
    "InitConfig",
    "RunConfig",
    "StageConfig",
    "WarmStartConfig",
    "dotted",
    "known_keys",
]


class BackboneConfig(Strict):
    """The language model. Further keys are options of its part."""

    model_config = ConfigDict(extra="allow")

    type: Word = "causal_lm"
    id: Word
    """Hub id, folder, or `scheme:name` of the assets table."""
    dtype: Literal["auto", "bfloat16", "float32", "float64"] = "float32"
    """`auto`: bfloat16 where the processor multiplies it, else float32; the resolved run says which."""
    template: Literal["chat", "plain", "bare"] = "chat"
    """`chat`: the tokenizer's own chat template; `plain`: roles as plain text, for models without one; `bare`: nothing
    around what is said."""
    system: str | None = None
    """System prompt put before every conversation that has none; null: none is put there."""


class ComponentConfig(Strict):
    """A part named once, for use by several modalities. Further keys are options of the part."""

    model_config = ConfigDict(extra="allow")

    room: Literal["encoders", "projectors", "codecs", "generators"]
    type: Word

    @property
    def spec(self) -> dict[str, Any]:
        """The part's spec, `{"type": ..., option: value}`."""
        return {"type": self.type, **(self.model_extra or {})}


class InitConfig(Strict):
    """Where a component's weights begin: out of one run, merged from several, or from several side by side."""

    of: Runs
    """A run folder; a list of them, whose components are merged; or place inside the component -> run folder: branches
    of a `lora` with `merged`, numbers of the experts of a `moe_ffn`."""
    component: Word | None = None
    """Its name in those runs; null: as here."""
    merge: Literal["average", "sum", "ties"] | None = None
    weights: list[float] | None = None
    """One a run; null: 1 each."""
    groups: dict[Word, list[float]] = Field(default_factory=dict)
    """Glob over names of tensors -> weights of their own."""
    density: Annotated[float, Field(gt=0, le=1)] = 0.2
    """`ties`: the share of largest values that each run keeps."""

    @property
    def runs(self) -> dict[str, str]:
        """Place inside the component -> run folder; places of a list are its numbers, of a single run it is ""."""
        if isinstance(self.of, str):
            return {"": self.of}
        return dict(self.of) if isinstance(self.of, Mapping) else {str(at): run for at, run in enumerate(self.of)}

    @model_validator(mode="before")
    @classmethod
    def _one_run(cls, data: Any) -> Any:
        return {"of": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _is_one_of_three(self) -> InitConfig:
        if isinstance(self.of, list) != (self.merge is not None):
            raise ValueError("`merge` (average, sum or ties) goes with `of: [RUN, RUN]`, and neither without the other")
        if not isinstance(self.of, list) and (self.weights is not None or self.groups):
            raise ValueError("`weights` and `groups` go with `of: [RUN, RUN]` alone")
        if any(len(given) != len(self.of) for given in (self.weights or self.of, *self.groups.values())):
            raise ValueError(f"{len(self.of)} runs need as many weights, in `weights` and in each of `groups`")
        return self


class ContextConfig(Strict):
    """How one conversation is laid out: how many slots it may fill, where they stand, how timed items interleave."""

    max: Count | None = None
    over: Literal["refuse", "start", "end"] = "refuse"
    """Refuse a longer one, or cut whole segments at its start (after the opening) or its end; cuts are counted."""
    positions: PartSpec = "sequential"
    interleave: PartSpec = "chunks"
    """The order of rows of one clip's items."""


class WarmStartConfig(Strict):
    """Alignment of the trained projectors to text embeddings, before the language model passes."""

    steps: Count = 300
    batch: Count = 64
    lr: Annotated[float, Field(gt=0, le=100)] = 1e-3


class StageConfig(Strict):
    """One stage of training."""

    name: Name
    of: Word = "model"
    """`model`, or the component that trains alone."""
    train: Annotated[list[Word], Field(min_length=1)]
    """Globs over component names, or over full parameter names `component.parameter`."""
    parameters: Natural | None = None
    """How many parameters that must be; null: not recorded yet."""
    data: Annotated[dict[str, Annotated[float, Field(ge=0)]], Field(min_length=1)]
    """Mixture: source -> weight."""
    steps: Count | None = None
    minutes: Annotated[float, Field(gt=0, le=10**6)] | None = None
    """Instead of steps: measured once, then written into the resolved run as steps."""
    batch: Count = 16
    lr: Rate = 1e-3
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of the steps."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Annotated[float, Field(gt=0)] = 1.0
    warm_start: WarmStartConfig | None = None
    pack: Natural = 0
    """0: pad, sorted by length; else slots of a packed row."""
    save_every: Natural = 50
    """Steps between checkpoints; 0: at the end only."""
    sample_every: Natural = 0
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


class EvaluationConfig(Strict):
    """One task of the evaluation. `chance`: the score of guessing; null: from the answers that occur."""

    data: Word
    metric: Literal["exact", "yes_no", "choice"] = "exact"
    limit: Count | None = None
    """Samples at most; null: all."""
    probes: list[Literal["blind", "shuffled", "permuted", "alone"]] = Field(default=["blind", "shuffled"])
    """Runs without the media, with the media of a sample that expects another answer, with any other sample's media,
    and with each modality of several alone."""
    max_new: Count = 16
    """Tokens an answer may have."""
    judge: Word | None = None
    """For generated items: the data source whose real items a classifier is fitted on; it names what was generated."""
    chance: Annotated[float, Field(ge=0, le=1)] | None = None


class RunConfig(Strict):
    """A run: model, data, stages and evaluation."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    seed: Annotated[StrictInt, Field(ge=0, lt=2**32)] = 0
    threads: Count | None = None
    """Threads of torch; null: all cores, and the resolved run tells how many that were."""
    backbone: BackboneConfig
    context: ContextConfig = ContextConfig()
    adapters: dict[Name, OwnPart] = Field(default_factory=dict)
    components: dict[Name, ComponentConfig] = Field(default_factory=dict)
    modalities: dict[Name, ModalityConfig]
    fusers: dict[Name, FuserConfig] = Field(default_factory=dict)
    cache: Word | None = None
    """Folder of cached rows of frozen encoders, which runs may share; null: the run's own, for training only."""
    init: dict[Word, InitConfig] = Field(default_factory=dict)
    """Weights to begin with: glob over components -> the run folder they come from, or how several make them."""
    data: dict[Name, OwnPart] = Field(default_factory=dict)
    stages: list[StageConfig] = Field(default_factory=list)
    evaluation: dict[Name, EvaluationConfig] = Field(default_factory=dict)

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
