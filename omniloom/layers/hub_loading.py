"""Published models of transformers, from a hub id or a folder: configuration first, weights strictly.

Only safetensors are read and no code of a repository is ever run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from omniloom.errors import CheckpointError, MissingAssetError
from omniloom.registry import resolve_asset

__all__ = ["load_config", "load_model", "read_config", "without_noise"]


def load_config(id: str, revision: str | None) -> PretrainedConfig:
    """The configuration of a hub id, a folder, or a `scheme:name` of the assets table.

    Raises:
        MissingAssetError: it is neither here nor on the hub.
    """
    try:
        return AutoConfig.from_pretrained(resolve_asset(id), revision=revision or "main", trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _no_config(id, error) from error


def read_config(id: str, revision: str | None) -> dict[str, Any]:
    """The fields of that configuration, of a kind that transformers need not know.

    Raises:
        MissingAssetError: it is neither here nor on the hub.
    """
    try:
        fields, _ = PretrainedConfig.get_config_dict(resolve_asset(id), revision=revision or "main")
    except (OSError, ValueError) as error:
        raise _no_config(id, error) from error
    if not fields:
        raise _no_config(id, OSError("there is no config.json"))
    return dict(fields)


def without_noise(config: PretrainedConfig, **changes: Any) -> PretrainedConfig:
    """A copy with every dropout rate zero and `changes` applied: rows of an item depend on the item alone."""
    copy = deepcopy(config)
    for name, value in config.to_dict().items():
        if "drop" in name and isinstance(value, float):
            setattr(copy, name, 0.0)
    for name, value in changes.items():
        setattr(copy, name, value)
    return copy


def load_model(
    loader: type[AutoModel] | type[PreTrainedModel],
    id: str,
    config: PretrainedConfig,
    *,
    revision: str | None,
    key_mapping: Mapping[str, str] | None = None,
    trim: Callable[[PreTrainedModel], None],
) -> PreTrainedModel:
    """`loader.from_pretrained` in float32, then `trim`; every parameter that is left must have come from the file.

    Raises:
        MissingAssetError: no safetensors there.
        CheckpointError: the file lacks parameters that the part needs.
    """
    verbosity, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    # The parts of the file that a part leaves out (text tower, decoder, head) would be reported as unexpected.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, info = loader.from_pretrained(  # type: ignore[misc]
            resolve_asset(id),
            config=config,
            revision=revision or "main",
            trust_remote_code=False,
            use_safetensors=True,
            dtype="float32",
            key_mapping=None if key_mapping is None else dict(key_mapping),
            output_loading_info=True,
        )
    except OSError as error:
        raise MissingAssetError(
            f"no safetensors weights for {id!r}: {_first_line(error)}. Convert older weight files to safetensors first."
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if has_bar:
            logging.enable_progress_bar()
    trim(model)
    left = dict(model.named_parameters())
    missing = sorted(name for name in info["missing_keys"] if name in left)
    if missing or info["mismatched_keys"]:
        raise CheckpointError(
            f"the weights of {id!r} lack {len(missing)} parameters of its configuration, or have other shapes; first: "
            f"{missing[:1] or sorted(info['mismatched_keys'])[:1]}. The folder is incomplete or of another model."
        )
    return model


def _no_config(id: str, error: Exception) -> MissingAssetError:
    if Path(id).is_absolute() and not Path(id).exists():
        return MissingAssetError(f"there is no folder {id}.")
    return MissingAssetError(
        f"no model configuration for {id!r}: {_first_line(error)}. "
        "Give a hub id, a folder with config.json, or a scheme:name."
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
