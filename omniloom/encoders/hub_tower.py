"""A tower of a published model: where it stands in the weights of a whole model, its layers, its squares."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import cached_file

from omniloom.errors import CheckpointError, ConfigError, MissingAssetError
from omniloom.layers.hub_loading import load_model
from omniloom.registry import resolve_asset
from omniloom.sequence import Packed, Shape

__all__ = ["by_item", "levels_of", "open_tower", "pack_layers", "run_layers", "square_side", "tower_key_mapping"]


def open_tower(
    tower: type[PreTrainedModel],
    id: str,
    config: PretrainedConfig,
    *,
    revision: str | None,
    weights: bool,
    is_inside: bool,
    trim: Callable[[PreTrainedModel], None],
) -> PreTrainedModel:
    """The tower in float32, with its weights or with random ones; `is_inside`: the file may be of a whole model.

    `trim` takes out what no row passes through, so that only what is left must come from the file.

    Raises:
        MissingAssetError: no safetensors there.
        CheckpointError: the file lacks the tower or parameters of it.
    """
    if weights:
        mapping = tower_key_mapping(id, revision, tower, config) if is_inside else None
        return load_model(tower, id, config, revision=revision, key_mapping=mapping, trim=trim)
    model: PreTrainedModel = tower._from_config(config, dtype=torch.float32)
    trim(model)
    return model


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


def run_layers(
    tower: Callable[..., Any], levels: Mapping[int, int], highest: int, *inputs: Tensor, **options: Any
) -> tuple[dict[int, Tensor], Any]:
    """Number -> (B, tokens, E) of its layer, and all that the tower gave.

    `levels` is what `levels_of` says; `highest` is the layer that the tower ends with, which has the final norm.
    """
    out = tower(*inputs, output_hidden_states=min(levels.values()) < highest, **options)
    return {
        number: out.last_hidden_state if level == highest else out.hidden_states[level]
        for number, level in levels.items()
    }, out


def by_item(values: Mapping[Any, Tensor]) -> list[dict[Any, Tensor]]:
    """Name -> (B, ...) as B times name -> (...)."""
    return [dict(zip(values, item, strict=True)) for item in zip(*values.values(), strict=True)]


def pack_layers(
    items: Sequence[Mapping[Any, Tensor]], shapes: Sequence[Shape], rows: int | str, taps: Iterable[int]
) -> Packed:
    """What was found of each item, layer -> (S_i, E) and perhaps "pooled" -> (vectors, J), as packed rows and taps.

    `rows` says which of it the rows are. Several vectors of one item are pooled into their mean.
    """
    vectors = [item["pooled"].mean(0) for item in items if "pooled" in item]
    return Packed(
        torch.cat([item[rows] for item in items]),
        tuple(shapes),
        torch.stack(vectors) if vectors else None,
        {number: torch.cat([item[number] for item in items]) for number in taps},
    )


def square_side(size: int | Sequence[int]) -> int:
    """The one side that a number, or a list of equal ones, stands for.

    Raises:
        ConfigError: sides that differ.
    """
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise ConfigError(f"a tower has pictures or patches of {tuple(sides)} pixels; only squares are known here.")
    return int(sides.pop())
