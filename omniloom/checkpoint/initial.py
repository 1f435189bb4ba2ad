"""Weights to begin with: components of other runs, or projectors of published models, before any training.

A run file says `init: {"*": ../runs/before}` or `init: {"image/projector": ../runs/before}`: globs over components,
each with the run folder they come from. What a component has more than it had there belongs to modalities that are new:
its own parameters of theirs, and the codes behind the known ones.

`init: {lora: {of: [../runs/image, ../runs/speech], merge: ties}}` merges a component of several runs,
`{text_lora: {of: {image: ../runs/image}, component: lora}}` puts one where it has its place inside another: a branch of
a `lora`, an expert of a `moe_ffn`. `component` is its name in those runs, if it is another.

`init: {"image/projector": llava-hf/llava-1.5-7b-hf}` takes the projector of a published multimodal model: a hub id,
with `@` a revision of it, or its folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omniloom.checkpoint.adopt import published_digest, published_weights
from omniloom.checkpoint.run import pretrained_origin, read_manifest, verify_files
from omniloom.checkpoint.tensors import digest_of, read_tensors
from omniloom.config import InitConfig, RunConfig, load_run
from omniloom.errors import CheckpointError, ConfigError, MissingAssetError, did_you_mean
from omniloom.interaction.composition import merge, renamed
from omniloom.model import OmniModel
from omniloom.model.compose import place
from omniloom.registry import names, split_spec

__all__ = ["begin_with", "initial_digests", "is_published"]


def begin_with(model: OmniModel, config: RunConfig, base: Path) -> set[str]:
    """Fill the components that `init` names; returns those that were filled.

    `base`: the folder that its paths start from. A later glob overrides an earlier one. Components that the other run
    keeps by reference (pretrained, never trained) are left as the model has them.

    Raises:
        CheckpointError: no run folder, altered files, weights of another shape, or a glob that names nothing.
        ConfigError: a published model of a family that is not known here, or a component without such a place.
    """
    filled: set[str] = set()
    runs: dict[Path, tuple[dict[str, Any], RunConfig]] = {}
    # What sums and TIES add changes to, before an earlier glob fills it.
    published = {
        name: {key: value.detach().clone() for key, value in values.items()}
        for name, values in model.components().items()
        if name not in model.adapters
        and any(start.merge in ("sum", "ties") and fnmatchcase(name, glob) for glob, start in config.init.items())
    }
    for glob, start in config.init.items():
        known = {name: values for name, values in model.components().items() if values}
        wanted = [name for name in known if fnmatchcase(name, glob)]
        if isinstance(start.of, str) and start.component is None and is_published(start.of, base):
            try:
                filled |= _begin_published(model, glob, wanted, place(start.of, base))
            except MissingAssetError as error:
                raise MissingAssetError(
                    f"init {glob!r}: {start.of!r} is neither a run folder here (write ./ before one) nor a model on "
                    f"the hub or in its cache: {error}"
                ) from error
            continue
        states: dict[str, dict[str, dict[str, Tensor] | None]] = {name: {} for name in wanted}
        for where, reference in start.runs.items():
            folder = (base / reference).resolve()
            if folder not in runs:
                manifest = read_manifest(folder)
                verify_files(folder, manifest)
                runs[folder] = manifest, load_run(folder / "run.yaml").config
            held = runs[folder][0]["components"]
            states = {name: found for name, found in states.items() if (start.component or name) in held}
            if not states:
                raise CheckpointError(
                    f"init {glob!r}: the run in {reference} holds no component of that name that this run has."
                    f"{did_you_mean(start.component or glob, held)}"
                )
            for name in states:
                theirs = start.component or name
                states[name][where] = _adopted(model, name, theirs, _state(folder, theirs, name, held), runs[folder][1])
                if held[theirs]["saved"]:
                    # What is put together was trained on one language model, or its sum means nothing.
                    alike = ["backbone"] if name in model.adapters and not isinstance(start.of, str) else []
                else:
                    alike = [name] if theirs == name else []
                for other in alike:
                    _require_same(model, other, held.get(other), runs[folder][1], f"init of {name!r} from {reference}")
        for name, found in states.items():
            what = f"init of {name!r} from {', '.join(start.runs.values())}"
            if _begin(model, name, known[name], start, found, published.get(name, {}), what):
                filled.add(name)
    return filled


def _state(folder: Path, theirs: str, ours: str, held: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """A component of a run under the name it has here; None where the run keeps it by reference."""
    if not held[theirs]["saved"]:
        return None
    return renamed(read_tensors(folder / "components" / theirs / "weights.safetensors"), theirs, ours)


def _begin(
    model: OmniModel,
    name: str,
    target: Mapping[str, Tensor],
    start: InitConfig,
    states: Mapping[str, dict[str, Tensor] | None],
    base: Mapping[str, Tensor],
    what: str,
) -> bool:
    """Fill one component; False where no run saved it."""
    saved = {where: state for where, state in states.items() if state is not None}
    if not saved and not isinstance(start.of, dict):
        return False
    if len(saved) < len(states):
        missing = next(start.runs[where] for where in states if where not in saved)
        raise CheckpointError(
            f"{what}: the run in {missing} never trained its {start.component or name!r} and keeps it by reference, so "
            "there is nothing to take. Name runs that trained it."
        )
    if isinstance(start.of, str):
        _assign(target, saved[""], what)
    elif start.merge is not None:
        given = list(saved.values())
        _assign(target, _merged(given, start, base, model, name, what), what)
    else:
        adapter = model.adapters.get(name)
        if adapter is None:
            raise ConfigError(f"{what}: only adapters have places inside; take `of: RUN`, or merge `of: [RUN, RUN]`.")
        for where, state in saved.items():
            placed = adapter.placed(name, where, state, target)
            _assign({key: target[key] for key in placed}, placed, what)
    return True


def _adopted(
    model: OmniModel, ours: str, theirs: str, state: dict[str, Tensor] | None, config: RunConfig
) -> dict[str, Tensor] | None:
    """The state as it does here what it did there: an adapter's options may be others in the run it is from."""
    adapter = model.adapters.get(ours)
    if adapter is None or state is None or theirs not in config.adapters:
        return state
    kind, options = split_spec(config.adapters[theirs], where=f"adapters.{theirs}")
    is_alike = names("interaction").get(kind) == f"{type(adapter).__module__}:{type(adapter).__qualname__}"
    return dict(adapter.adopted(state, options)) if is_alike else state


def _require_same(model: OmniModel, name: str, facts: Mapping[str, Any] | None, theirs: RunConfig, what: str) -> None:
    """A pretrained component is the one that the other run kept by reference; one that it trained, or had in another
    dtype, is not asked about.

    Raises:
        CheckpointError: it is another.
    """
    if facts is None or facts["saved"] or pretrained_origin(model, name) == facts["origin"]:
        return
    if name == "backbone" and theirs.backbone.dtype != getattr(model.backbone, "dtype", None):
        return
    if digest_of(model.components()[name]) != facts["digest"]:
        raise CheckpointError(
            f"{what}: that run had {facts['origin']!r} as its {name!r}, this one {pretrained_origin(model, name)!r} "
            "with other weights, on which what it learned means something else. Name the same model, or let "
            "`init` name only components that stand by themselves."
        )


def _merged(
    states: Sequence[dict[str, Tensor]],
    start: InitConfig,
    published: Mapping[str, Tensor],
    model: OmniModel,
    name: str,
    what: str,
) -> dict[str, Tensor]:
    """One state of several. Sums and TIES are of changes: adapters are changes; of a pretrained component it is what
    training made of the `published` weights."""
    options: dict[str, Any] = {"density": start.density, "weights": start.weights, "groups": start.groups}
    assert start.merge is not None
    if start.merge == "average" or name in model.adapters:
        return merge(states, start.merge, **options)
    if pretrained_origin(model, name) is None:
        raise ConfigError(
            f"{what}: `merge: {start.merge}` adds changes, and {name!r} began at random, so its weights are no changes "
            "of anything. Merge it by `average`."
        )
    states = [{key: value for key, value in state.items() if key in published} for state in states]
    base = {key: published[key].float() for state in states for key in state}
    changes = [{key: value.float() - base[key] for key, value in state.items()} for state in states]
    merged = merge(changes, start.merge, **options)
    return {key: (base[key] + value).to(published[key].dtype) for key, value in merged.items()}


def initial_digests(config: RunConfig, base: Path) -> dict[str, str]:
    """What a resumed run must find unchanged: digests of components that `init` may take, by where they come from."""
    digests = {}
    for start in config.init.values():
        for reference in start.runs.values():
            if is_published(reference, base):
                digests[f"init {reference}"] = published_digest(place(reference, base))
                continue
            components = read_manifest((base / reference).resolve())["components"]
            digests[f"init {reference}"] = " ".join(
                f"{name}={components[name]['digest']}" for name in sorted(components)
            )
    return digests


def is_published(reference: str, base: Path) -> bool:
    """Whether a published model is meant, and no run folder: its folder, or anything that is no path."""
    folder = base / reference
    return (folder / "config.json").is_file() or not (folder.exists() or reference.startswith((".", "/")))


def _begin_published(model: OmniModel, glob: str, wanted: Sequence[str], id: str) -> set[str]:
    parts = [name for name in wanted if name in model.parts]
    if not parts:
        raise CheckpointError(f"init {glob!r}: this run has no such part.{did_you_mean(glob, list(model.parts))}")
    for name in parts:
        _assign(model.components()[name], published_weights(id, model.parts[name], name), f"init of {name!r} from {id}")
    return set(parts)


def _assign(target: Mapping[str, Tensor], source: Mapping[str, Tensor], what: str) -> None:
    problems = [f"unexpected {name}" for name in source if name not in target]
    problems += [f"missing {name}" for name in target if name not in source and "own." not in name]
    for name, value in source.items():
        if name in target and not _fits(target[name], value):
            problems.append(f"{name} is {tuple(value.shape)} {value.dtype}, expected {tuple(target[name].shape)}")
    if problems:
        raise CheckpointError(
            f"{what} does not fit: {'; '.join(problems[:8])}. Give the component the options it has in the other run."
        )
    with torch.no_grad():
        for name, value in source.items():
            target[name][tuple(slice(size) for size in value.shape)] = value


def _fits(target: Tensor, value: Tensor) -> bool:
    """The same shape, or more rows than there were: codes of a new modality stand behind the known ones."""
    if target.dtype != value.dtype or target.dim() != value.dim():
        return False
    if target.shape == value.shape:
        return True
    return target.dim() == 2 and target.shape[1:] == value.shape[1:] and target.shape[0] > value.shape[0]
