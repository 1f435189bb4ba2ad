"""Relative paths in a run: which values are paths, and what they become when the run moves to another folder."""

from __future__ import annotations

import os
from pathlib import Path

from omniloom.config.reading import Node, node_of
from omniloom.config.schema import RunConfig
from omniloom.registry import names

__all__ = ["moved", "relocated"]

_PART_KEYS = ("codec", "encoder", "generator", "layout", "processor", "projector", "type", "use")
_PATH_KEYS = ("id", "path", "root")


def relocated(config: RunConfig, old: Path, new: Path) -> RunConfig:
    """The same run for a run file in the folder `new`: paths that started from `old` start from `new`."""
    tree = moved(node_of(config.model_dump(mode="json", by_alias=True), "run"), old, new)
    return RunConfig.model_validate(tree.plain())


def moved(node: Node, old: Path, new: Path, where: tuple[str, ...] = ()) -> Node:
    """A tree whose relative paths started from the folder `old`, as it is written in the folder `new`.

    Paths are: part files (`file.py:Class`, `use: file.py`), `cache`, `path` and `root` of a data source, and any `id`,
    `path`, `root` or value of `init` that starts with `./` or `../`. Absolute paths, hub ids and `scheme:name` stay.
    """
    if old.resolve() == new.resolve():
        return node
    if isinstance(node.value, dict):
        items = {key: moved(item, old, new, (*where, key)) for key, item in node.value.items()}
        return Node(items, node.file, node.line)
    if isinstance(node.value, list):
        return Node([moved(item, old, new, where) for item in node.value], node.file, node.line)
    if not isinstance(node.value, str) or not where or not _is_relative(node.value, where):
        return node
    file, colon, name = node.value.rpartition(":") if ".py:" in node.value else (node.value, "", "")
    path = Path(os.path.relpath(old / file, new)).as_posix()
    if (where[-1] in _PATH_KEYS or where[0] in ("init", "cache")) and where[0] != "data" and not path.startswith("../"):
        path = "./" + path
    if node.value.endswith("/"):
        path += "/"
    return Node(path + colon + name, node.file, node.line)


def _is_relative(text: str, where: tuple[str, ...]) -> bool:
    if os.path.isabs(text):
        return False
    if where[-1] in _PART_KEYS:
        return ".py:" in text or (where[-1] == "use" and text.endswith(".py"))
    if where == ("cache",):
        return True
    if where[0] == "init":
        return text.startswith(("./", "../"))
    if where[-1] not in _PATH_KEYS:
        return False
    scheme, colon, _ = text.partition(":")
    is_source = where[0] == "data" and where[-1] != "id" and not (colon and scheme in names("datasets"))
    return is_source or text.startswith(("./", "../"))
