"""A modality as one file: `use: ./touch.py` in a row of the table of modalities.

The file holds a dictionary MODALITY, where parts are classes, names or specs:

    MODALITY = dict(
        payload="series",
        processor=TouchProcessor,                       # a class of the file
        encoder={"type": TouchEncoder, "width": 32},    # a class with options
        projector="mlp",                                # a name of the table of parts
        markers=("<touch>", "</touch>"),                # optional
        slots={"max": 16, "over": "resample"},          # optional
    )

Keys: payload, markers, processor, encoder, projector, slots, insert, attention, timestamps, windows for what comes in;
codec, layout, generator for what goes
out. In the run it becomes an ordinary row whose classes are written `touch.py:TouchEncoder`; other keys of the
run file's row override it. `use:` also takes the name of an installed modality (entry-point group
`omniloom.modalities`, `module:MODALITY`), whose parts must be in the table of parts themselves.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from omniloom.config.reading import Node, merged, node_of
from omniloom.errors import ConfigError, MissingAssetError, did_you_mean
from omniloom.registry import names, part_file

__all__ = ["expanded", "resolve_modality"]

_IN = {"processor": "processors", "encoder": "encoders", "projector": "projectors"} | dict.fromkeys(
    ("slots", "insert", "attention", "timestamps", "windows"), ""
)
_OUT = {"codec": "codecs", "layout": "layouts", "generator": "generators"}
_ROW = ("payload", "markers", "split")


def expanded(tree: Node, base: Path) -> Node:
    """A run's tree with every `use:` filled in; `base` is the folder of the run file.

    Raises:
        ConfigError: a modality file is missing, fails on import or holds no proper MODALITY; at the line of its `use:`.
    """
    rows = tree.value.get("modalities") if isinstance(tree.value, dict) else None
    if rows is None or not isinstance(rows.value, dict):
        return tree
    filled = {}
    for name, row in rows.value.items():
        filled[name] = _filled(row, base) if isinstance(row.value, dict) and "use" in row.value else row
    return Node({**tree.value, "modalities": Node(filled, rows.file, rows.line)}, tree.file, tree.line)


def resolve_modality(use: str, base: Path) -> dict[str, Any]:
    """The nested row `{"payload": ..., "in": {...}, "out": {...}}` of a modality file or an installed modality.

    Raises:
        ConfigError: it is not there, or its MODALITY is malformed.
    """
    if use.endswith(".py"):
        module = part_file(use, base=base)
        table = getattr(module, "MODALITY", None)
        place = Path(use).as_posix() if not os.path.isabs(use) else use
        return _nested(table, use, module, place)
    known = names("modalities")
    if use not in known:
        raise ConfigError(f"there is no modality file or installed modality {use!r}.{did_you_mean(use, known)}")
    module_name, _, attribute = known[use].partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        message = f"the modality {use!r} needs the module {error.name!r}, which is not installed."
        raise MissingAssetError(message) from error
    return _nested(getattr(module, attribute or "MODALITY", None), use, module, None)


def _filled(row: Node, base: Path) -> Node:
    use = row.value["use"]
    if not isinstance(use.value, str) or not use.value:
        raise use.error("`use` must be a Python file, or the name of an installed modality.")
    try:
        known = node_of(resolve_modality(use.value, base), use.value)
    except (ConfigError, MissingAssetError) as error:
        raise use.error(error.message if isinstance(error, ConfigError) else str(error)) from error
    own = Node({key: node for key, node in row.value.items() if key != "use"}, row.file, row.line)
    return merged(known, own)


def _nested(table: Any, use: str, module: ModuleType, place: str | None) -> dict[str, Any]:
    if not isinstance(table, Mapping):
        example = "MODALITY = dict(payload=..., processor=..., encoder=...)"
        raise ConfigError(f"{use!r} holds no dictionary MODALITY. Write {example}.")
    known = (*_ROW, *_IN, *_OUT)
    for key in table:
        if key not in known:
            raise ConfigError(f"MODALITY of {use!r} has the unknown key {key!r}.{did_you_mean(str(key), known)}")
    row: dict[str, Any] = {key: table[key] for key in _ROW if key in table}
    for way, rooms in (("in", _IN), ("out", _OUT)):
        parts = {key: _named(table[key], room, module, place) for key, room in rooms.items() if key in table}
        if parts:
            row[way] = parts
    return row


def _named(value: Any, room: str, module: ModuleType, place: str | None) -> Any:
    """A part as it is written in a run file: classes become names or `file.py:Class`."""
    if isinstance(value, (list, tuple)):
        return [_named(item, room, module, place) for item in value]
    if isinstance(value, Mapping):
        return {key: _named(item, room, module, place) if key == "type" else item for key, item in value.items()}
    if not callable(value):
        return value
    name = getattr(value, "__qualname__", "")
    if place is not None and getattr(module, name, None) is value and value.__module__ == module.__name__:
        return f"{place}:{name}"
    targets = {target: key for key, target in names(room).items()} if room else {}
    target = f"{value.__module__}:{name}"
    if target in targets:
        return targets[target]
    if place is not None and getattr(module, name, None) is value:
        return f"{place}:{name}"
    raise ConfigError(
        f"{name or value!r} in a MODALITY is neither in the table of {room} nor a class of the modality's own file. "
        f"Register it as an entry point of `omniloom.{room}`."
    )
