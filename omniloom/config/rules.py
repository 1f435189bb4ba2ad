"""What must agree across a run file: names that refer to one another, and globs that must find something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from omniloom.config.schema import RunConfig, StageConfig
from omniloom.config.table import component_of
from omniloom.errors import did_you_mean
from omniloom.registry import names

__all__ = ["Finding", "glob_may_match", "part_places", "rules"]

Path = tuple[str | int, ...]
Finding = tuple[Path, str]
"""Where in the run file, and what is wrong there."""


def rules(run: RunConfig, declared: Mapping[str, set[str]], *, is_whole: bool = True) -> Iterator[Finding]:
    """Everything wrong with a run file whose keys and values are right one by one.

    Args:
        run: the run.
        declared: table (`data`, `components`) -> names in the file, also of rows that are malformed.
        is_whole: False if malformed rows were left out, so that globs may match what is not in `run`.
    """
    yield from _parts(run, declared["components"])
    if not run.modalities and is_whole:
        yield ("modalities",), "at least one modality is needed. Declare one, or start from a recipe with `extends:`."
    yield from _component_names(run)
    yield from _joined(run)
    seen: dict[str, int] = {}
    for index, stage in enumerate(run.stages):
        if stage.name in seen:
            message = f"stages {seen[stage.name]} and {index} have the same name {stage.name!r}. Rename one."
            yield ("stages", index, "name"), message
        seen.setdefault(stage.name, index)
        for source in stage.data:
            if source not in declared["data"]:
                message = f"stage {stage.name!r} trains on {source!r}, which is not in `data`."
                yield ("stages", index, "data", source), message + did_you_mean(source, declared["data"])
        if is_whole:
            yield from _selectors(run, index, stage)
    for name, task in run.evaluation.items():
        for key, read in (("data", task.data), ("judge", task.judge)):
            if read is not None and read not in declared["data"]:
                message = f"evaluation {name!r} reads {read!r} as `{key}`, which is not in `data`."
                yield ("evaluation", name, key), message + did_you_mean(read, declared["data"])


def part_places(run: RunConfig) -> Iterator[tuple[Path, str, str | dict[str, Any]]]:
    """Every part of a run: its place, its room and its spec. Places with `{component: NAME}` included."""
    yield ("backbone",), "backbones", {"type": run.backbone.type, **(run.backbone.model_extra or {})}
    yield ("context", "positions"), "positions", run.context.positions
    yield ("context", "interleave"), "interleavings", run.context.interleave
    for name, adapter in run.adapters.items():
        yield ("adapters", name), "interaction", adapter
    for name, component in run.components.items():
        yield ("components", name), component.room, component.spec
    for name, row in run.modalities.items():
        if row.in_ is not None:
            yield ("modalities", name, "in", "processor"), "processors", row.in_.processor
            yield ("modalities", name, "in", "encoder"), "encoders", row.in_.encoder
            if row.in_.projector is not None:
                yield from _chain_places(("modalities", name, "in", "projector"), row.in_.projector)
        if row.out is not None:
            for place, room in (("codec", "codecs"), ("layout", "layouts"), ("generator", "generators")):
                if (spec := getattr(row.out, place)) is not None:
                    yield ("modalities", name, "out", place), room, spec
    for name, fuser in run.fusers.items():
        yield ("fusers", name), "fusers", fuser.spec
        if fuser.projector is not None:
            yield from _chain_places(("fusers", name, "projector"), fuser.projector)
    for name, source in run.data.items():
        yield ("data", name), "sources", source


def _chain_places(path: Path, projector: Any) -> Iterator[tuple[Path, str, str | dict[str, Any]]]:
    if isinstance(projector, list):
        for index, spec in enumerate(projector):
            yield (*path, index), "projectors", spec
    else:
        yield path, "projectors", projector


def glob_may_match(glob: str, component: str) -> bool:
    """Whether a glob matches the component, or could match a parameter `component.parameter` of it.

    It could if some beginning of it matches `component.`; the rest then stands for the parameter, which has no `/`.
    """
    cuts = [end for end in range(1, len(glob) + 1) if "/" not in glob[end:]]
    return fnmatchcase(component, glob) or any(fnmatchcase(component + ".", glob[:end]) for end in cuts)


def _parts(run: RunConfig, components: set[str]) -> Iterator[Finding]:
    for path, room, spec in part_places(run):
        component = component_of(spec)
        if component is None:
            name = spec if isinstance(spec, str) else spec["type"]
            if ".py:" not in name and name not in names(room):
                yield (*path, "type"), f"unknown {room.rstrip('s')} {name!r}.{did_you_mean(name, names(room))}"
        elif component not in components:
            yield (*path, "component"), f"there is no component {component!r}.{did_you_mean(component, components)}"
        elif component in run.components and run.components[component].room != room:
            other = run.components[component].room
            yield (*path, "component"), f"component {component!r} is of room {other!r}; a part of {room!r} stands here."


def _component_names(run: RunConfig) -> Iterator[Finding]:
    taken = {"backbone": "the language model", "vocab": "the vocabulary's rows of codes", "model": "the whole model"}
    taken |= {name: "`modalities`" for name in run.modalities} if run.fusers else {}
    for table in ("components", "adapters", "fusers"):
        for name in getattr(run, table):
            if name in taken:
                yield (table, name), f"the name {name!r} is taken by {taken[name]}. Rename it."
            taken[name] = f"`{table}`"


def _joined(run: RunConfig) -> Iterator[Finding]:
    """Names of modalities in `split` and in fusers."""
    incoming = [name for name, row in run.modalities.items() if row.in_ is not None]
    for name, row in run.modalities.items():
        for target in row.split or ():
            if target not in incoming:
                hint = did_you_mean(target, incoming)
                yield ("modalities", name, "split"), f"{name!r} is split into {target!r}, which has no `in`.{hint}"
    for name, fuser in run.fusers.items():
        if len(set(fuser.inputs)) < len(fuser.inputs):
            yield ("fusers", name, "inputs"), f"fuser {name!r} names one of its inputs twice. Name each once."
        for source in fuser.inputs:
            if source not in incoming:
                hint = did_you_mean(source, incoming)
                yield ("fusers", name, "inputs"), f"fuser {name!r} reads {source!r}, which has no `in`.{hint}"
        for kept in fuser.keep:
            if kept not in fuser.inputs:
                hint = did_you_mean(kept, fuser.inputs)
                yield ("fusers", name, "keep"), f"fuser {name!r} keeps {kept!r}, which is not one of its inputs.{hint}"


def _selectors(run: RunConfig, index: int, stage: StageConfig) -> Iterator[Finding]:
    known = run.component_names
    if stage.of != "model" and stage.of not in known:
        hint = did_you_mean(stage.of, ["model", *known])
        yield ("stages", index, "of"), f"there is no component {stage.of!r} to train alone.{hint}"
    globs: list[Finding] = [(("stages", index, "train", place), glob) for place, glob in enumerate(stage.train)]
    if isinstance(stage.lr, dict):
        globs += [(("stages", index, "lr", glob), glob) for glob in stage.lr]
    for path, glob in globs:
        chain = next((name for name in run.modalities if _misses_chain(run, name, glob)), None)
        if chain is not None:
            links = f"{chain}/projector1 and so on"
            yield path, f"{glob!r} misses the projectors of {chain!r}, a chain: they are {links}. Write {glob + '*'!r}."
        elif not any(glob_may_match(glob, name) for name in known):
            yield path, f"{glob!r} matches no component.{did_you_mean(glob, known)}"


def _misses_chain(run: RunConfig, modality: str, glob: str) -> bool:
    """Whether a glob names the projector of a modality that has a chain of them, and so would leave all of them out."""
    row = run.modalities[modality].in_
    if row is None or not isinstance(row.projector, list) or not fnmatchcase(f"{modality}/projector", glob):
        return False
    return not any(glob_may_match(glob, f"{modality}/projector{suffix}") for suffix, _ in row.links)
