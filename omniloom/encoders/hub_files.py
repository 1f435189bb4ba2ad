"""What a published processor is configured with: its file, or its section of the newer file of several processors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from omniloom.errors import ConfigError, MissingAssetError
from omniloom.registry import resolve_asset

__all__ = ["read_processor_config", "refuse_options"]


def read_processor_config(
    id: str,
    revision: str | None,
    *,
    files: Sequence[str] = ("preprocessor_config.json", "processor_config.json"),
    sections: Sequence[str] = ("image_processor", "feature_extractor"),
) -> dict[str, Any]:
    """The first of `files` that a hub id or folder has, or the first of `sections` in it.

    Raises:
        MissingAssetError: none of the files is there.
    """
    for name in files:
        try:
            file = cached_file(resolve_asset(id), name, revision=revision or "main")
        except OSError:
            continue
        config: dict[str, Any] = json.loads(Path(str(file)).read_text())
        return next((config[section] for section in sections if config.get(section)), config)
    raise MissingAssetError(
        f"no {files[0]} for {id!r}. Give a hub id or a folder that holds it, or take a processor whose options are all "
        "written out."
    )


def refuse_options(id: str, given: Mapping[str, Any], **known: Any) -> None:
    """Refuse a file whose options say what is not computed here.

    Args:
        given: the file; what it leaves out or has as null says nothing.
        known: the only value an option may have, besides those of pictures that are scaled and normalised.
    Raises:
        ConfigError: another value; to leave it unread would change every feature.
    """
    plain = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    for name, value in {**plain, **known}.items():
        if given.get(name) not in (None, value):
            raise ConfigError(
                f"the processor of {id!r} has {name}={given[name]!r}; only {value!r} is known here. Correct its "
                "configuration."
            )
