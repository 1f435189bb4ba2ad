"""From a published multimodal model to a run folder that loads, chats, evaluates and trains as any other.

The language model, the towers and whatever is loaded by an id stay where they are: the run names them, and the manifest
holds their digests. Projectors are ours, filled with the published weights and saved in the run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from omniloom.backbone.stock import fast_dtype
from omniloom.checkpoint.run import save_model
from omniloom.checkpoint.tensors import digest_of
from omniloom.config import RunConfig
from omniloom.errors import CheckpointError, ConfigError
from omniloom.model import compose
from omniloom.published import Part, Source, Weights, published_model
from omniloom.registry import find, resolve_asset

__all__ = ["adopt", "published_digest", "published_weights"]


def adopt(
    id: str, folder: Path, *, revision: str | None = None, dtype: str = "float32", name: str | None = None
) -> Path:
    """Write the run folder of a published model; returns it.

    `id`: hub id, folder, or `scheme:name` of the assets table. `revision`: branch, tag or commit on the hub. `dtype`:
    of the language model; "auto" is the fast one of this machine. `name`: of the run; the folder's own by default.

    Raises:
        ConfigError: a family that is not known here, an option of it that our parts do not have, or a folder that is
            there already.
        MissingAssetError: no such model, or no safetensors.
        CheckpointError: weights of another model than the configuration says.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already. Name a new folder.")
    dtype = fast_dtype() if dtype == "auto" else dtype
    source = Source(id, revision, _reference(id, folder))
    published = published_model(source)
    pinned = {"revision": revision} if revision else {}
    values = published.values({"type": "causal_lm", "id": source.reference, "dtype": dtype, **pinned})
    config = RunConfig.model_validate({"name": name or _named(folder), **values})
    model = compose(config, base=folder)
    weights = Weights(source)
    for component, part in published.components().items():
        module = model.parts[component]
        _fill(module, weights.of(part, module))
    save_model(model, config, folder, trained=())
    return folder


def published_weights(id: str, module: nn.Module, component: str) -> dict[str, Tensor]:
    """What a published model holds for one part of any run: its MLP, its merger, under the part's own names.

    `id`: hub id or folder, a revision behind `@`. `component`: what the part is called in the run.

    Raises:
        ConfigError: a family that is not known here.
        CheckpointError: the model has no such part, or one of other widths or options.
    """
    source = _source(id)
    weights, reasons = Weights(source), []
    for part in published_model(source).components().values():
        try:
            _require_like(part, module)
            return weights.of(part, module)
        except CheckpointError as error:
            reasons.append(f"{part.spec['type']}: {error}")
    raise CheckpointError(
        f"{id!r} holds nothing for {component!r}, a {type(module).__name__}. What it holds: {' | '.join(reasons)}"
    )


def published_digest(id: str) -> str:
    """Digest of all that a published model holds for parts of runs."""
    source = _source(id)
    weights = Weights(source)
    parts = published_model(source).components().values()
    return digest_of({name: value for part in parts for name, value in weights.named(part).items()})


def _source(id: str) -> Source:
    name, _, revision = (id, "", "") if Path(id).is_dir() else id.partition("@")
    return Source(name, revision or None)


def _require_like(part: Part, module: nn.Module) -> None:
    """The published part and ours are of one class and compute the same; options that are free may differ."""
    if find("projectors", str(part.spec["type"])) is not type(module):
        raise CheckpointError("is another kind of part.")
    wrong = [f"{key}: {value}" for key, value in part.spec.items() if key != "type" and getattr(module, key) != value]
    if wrong:
        raise CheckpointError(f"has other options. Set {', '.join(wrong)}.")


def _fill(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in module.named_parameters():
            value.copy_(values[name])


def _reference(id: str, folder: Path) -> str:
    """How the run file in a folder names the model: hub ids as they are, folders from there."""
    if resolve_asset(id) != id or not Path(id).is_dir():
        return id
    path = Path(os.path.relpath(id, folder)).as_posix()
    return path if path.startswith("../") else f"./{path}"


def _named(folder: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("._-")
    return name[:64] or "published"
