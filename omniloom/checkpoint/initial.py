"""Weights to begin with: components of another run, or projectors of published models, before any training.

A run file says `init: {"*": ../runs/before}` or `init: {"image/projector": ../runs/before}`: globs over components,
each with the run folder they come from. What a component has more than it had there belongs to modalities that are new:
its own parameters of theirs, and the codes behind the known ones.

`init: {"image/projector": llava-hf/llava-1.5-7b-hf}` takes the projector of a published multimodal model: a hub id,
with `@` a revision of it, or its folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor

from omniloom.checkpoint.adopt import published_digest, published_weights
from omniloom.checkpoint.run import read_manifest, verify_files
from omniloom.checkpoint.tensors import read_tensors
from omniloom.config import RunConfig
from omniloom.errors import CheckpointError, did_you_mean
from omniloom.model import OmniModel
from omniloom.model.compose import place

__all__ = ["begin_with", "initial_digests"]


def begin_with(model: OmniModel, config: RunConfig, base: Path) -> set[str]:
    """Fill the components that `init` names; returns those that were filled.

    `base`: the folder that its paths start from. A later glob overrides an earlier one. Components that the other run
    keeps by reference (pretrained, never trained) are left as the model has them.

    Raises:
        CheckpointError: no run folder, altered files, weights of another shape, or a glob that names nothing.
        ConfigError: a published model of a family that is not known here.
    """
    filled: set[str] = set()
    for glob, reference in config.init.items():
        known = {name: values for name, values in model.components().items() if values}
        wanted = [name for name in known if fnmatchcase(name, glob)]
        if _is_published(reference, base):
            filled |= _begin_published(model, glob, wanted, place(reference, base))
            continue
        folder = (base / reference).resolve()
        manifest = read_manifest(folder)
        verify_files(folder, manifest)
        found = [name for name in wanted if name in manifest["components"]]
        if not found:
            raise CheckpointError(
                f"init {glob!r}: the run in {reference} holds no component of that name that this run has."
                f"{did_you_mean(glob, manifest['components'])}"
            )
        for name in found:
            if manifest["components"][name]["saved"]:
                path = folder / "components" / name / "weights.safetensors"
                _assign(known[name], read_tensors(path), f"init of {name!r} from {reference}")
                filled.add(name)
    return filled


def initial_digests(config: RunConfig, base: Path) -> dict[str, str]:
    """What a resumed run must find unchanged: digests of components that `init` may take, by where they come from."""
    digests = {}
    for reference in config.init.values():
        if _is_published(reference, base):
            digests[f"init {reference}"] = published_digest(place(reference, base))
            continue
        components = read_manifest((base / reference).resolve())["components"]
        digests[f"init {reference}"] = " ".join(f"{name}={components[name]['digest']}" for name in sorted(components))
    return digests


def _is_published(reference: str, base: Path) -> bool:
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
