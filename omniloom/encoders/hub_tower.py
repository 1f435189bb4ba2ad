"""A tower of a published model: where it stands in the weights of a whole model, and the side of its squares."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import cached_file

from omniloom.errors import CheckpointError, ConfigError, MissingAssetError
from omniloom.registry import resolve_asset

__all__ = ["levels_of", "square_side", "tower_key_mapping"]


def tower_key_mapping(
    id: str, revision: str | None, tower: type[PreTrainedModel], config: PretrainedConfig
) -> dict[str, str] | None:
    """The `key_mapping` of `load_model` that finds one tower in the file of a whole model; None where none is needed.

    The names in the file decide: whole models hold the same tower below `vision_model.`, `model.vision_tower.`,
    `vision_tower.vision_model.`, `visual.` and more, some in two places depending on their age.

    Raises:
        CheckpointError: the file holds no such tower, or several of them.
    """
    with torch.device("meta"):
        wanted = set(tower._from_config(config).state_dict())
    found = _places(_tensor_names(id, revision), wanted)
    if not found:
        raise CheckpointError(f"the weights of {id!r} hold no {tower.__name__}. The file is of another model.")
    most = max(found.values())
    places = sorted(place for place, count in found.items() if count == most)
    if len(places) > 1:
        raise CheckpointError(
            f"the weights of {id!r} hold {len(places)} towers of one kind, below {places}; expected one."
        )
    return {f"^{re.escape(places[0])}": ""} if places[0] else None


def _places(names: Iterable[str], wanted: set[str]) -> Counter[str]:
    """How many of the `wanted` names stand below each prefix."""
    found: Counter[str] = Counter()
    for name in names:
        for start in (0, *(match.end() for match in re.finditer(r"\.", name))):
            if name[start:] in wanted:
                found[name[:start]] += 1
    return found


def _tensor_names(id: str, revision: str | None) -> list[str]:
    """Names of all tensors in the safetensors of a hub id or folder."""
    source, revision = resolve_asset(id), revision or "main"
    try:
        file = cached_file(source, "model.safetensors", revision=revision, _raise_exceptions_for_missing_entries=False)
        if file is not None:
            with safe_open(str(file), "pt") as tensors:
                return list(tensors.keys())
        index = cached_file(source, "model.safetensors.index.json", revision=revision)
    except OSError as error:
        raise MissingAssetError(
            f"no safetensors weights for {id!r}. Convert older weight files to safetensors first."
        ) from error
    return list(json.loads(Path(str(index)).read_text())["weight_map"])


def levels_of(id: str, depth: int, numbers: Iterable[int]) -> dict[int, int]:
    """Number -> index into the `depth` + 1 hidden states; negative numbers count from the last.

    Raises:
        ConfigError: a number beyond them.
    """
    levels = {number: number if number >= 0 else depth + 1 + number for number in numbers}
    wrong = [number for number, level in levels.items() if not 0 <= level <= depth]
    if wrong:
        raise ConfigError(f"{id!r} has layers 0 to {depth}, or -1 to {-depth - 1}; got {wrong}.")
    return levels


def square_side(size: int | Sequence[int]) -> int:
    """The one side that a number, or a list of equal ones, stands for.

    Raises:
        ConfigError: sides that differ.
    """
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise ConfigError(f"a tower has pictures or patches of {tuple(sides)} pixels; only squares are known here.")
    return int(sides.pop())
