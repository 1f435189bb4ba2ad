"""From a published multimodal model to a run folder that loads, chats, evaluates and trains as any other.

The language model, the towers and whatever is loaded by an id stay where they are: the run names them, and the manifest
holds their digests. Projectors are ours, filled with the published weights and saved in the run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import torch

from omniloom.checkpoint import save_model
from omniloom.config import RunConfig
from omniloom.errors import ConfigError, did_you_mean
from omniloom.model import compose
from omniloom.published.source import Published, Source
from omniloom.published.tensors import Weights
from omniloom.registry import find, names, resolve_asset

__all__ = ["adopt", "published_model"]


def adopt(
    id: str, folder: Path, *, revision: str | None = None, dtype: str = "float32", name: str | None = None
) -> Path:
    """Write the run folder of a published model; returns it.

    `id`: hub id, folder, or `scheme:name` of the assets table. `revision`: branch, tag or commit on the hub. `dtype`:
    of the language model. `name`: of the run; the folder's own by default.

    Raises:
        ConfigError: a family that is not known here, an option of it that our parts do not have, or a folder that is
            there already.
        MissingAssetError: no such model, or no safetensors.
        CheckpointError: weights of another model than the configuration says.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already. Name a new folder.")
    source = Source(id, revision, _reference(id, folder))
    published = published_model(source)
    pinned = {"revision": revision} if revision else {}
    values = published.values({"type": "causal_lm", "id": source.reference, "dtype": dtype, **pinned})
    config = RunConfig.model_validate({"name": name or _named(folder), **values})
    model = compose(config, base=folder)
    weights = Weights(source)
    with torch.no_grad():
        for component, part in published.components().items():
            module = model.parts[component]
            found = weights.of(part, module)
            for parameter, value in module.named_parameters():
                value.copy_(found[parameter])
    save_model(model, config, folder, trained=())
    return folder


def published_model(source: Source) -> Published:
    """A published model as rows of parts.

    Raises:
        ConfigError: no family here is of its type.
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


def _reference(id: str, folder: Path) -> str:
    """How the run file in a folder names the model: hub ids as they are, folders from there."""
    if resolve_asset(id) != id or not Path(id).is_dir():
        return id
    path = Path(os.path.relpath(id, folder)).as_posix()
    return path if path.startswith("../") else f"./{path}"


def _named(folder: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("._-")
    return name[:64] or "published"
