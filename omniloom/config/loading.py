"""A run file as a checked run: read, extended, set from the command line, expanded, validated.

    run = load_run("quickstart", sets=["stages.0.steps=5"])      a recipe's name, a YAML file, or a run folder
    run.config.backbone.id;  run.error(("stages", 0, "lr"), "...")      a ConfigError at the line of that key

The order: `extends:` files are merged below the file that names them, `--set` goes on top, rows with `use:` are filled
in from their modality file, then everything is checked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from omniloom.config.checking import Problem, checked
from omniloom.config.modality_file import expanded
from omniloom.config.overrides import overridden
from omniloom.config.paths import moved
from omniloom.config.reading import Node, kind_of, merged, read_file, yaml_text
from omniloom.config.schema import RunConfig
from omniloom.errors import ConfigError, did_you_mean

__all__ = ["LoadedRun", "digest", "dump", "load_run", "problems", "recipes"]


@dataclass(frozen=True)
class LoadedRun:
    """A checked run and where it came from.

    `base_folder`: what relative paths in the run start from. `sources`: the files read, the run file first.
    `tree`: the values with their places.
    """

    config: RunConfig
    base_folder: Path
    sources: tuple[Path, ...]
    tree: Node

    @property
    def lines(self) -> dict[str, tuple[str, int | None]]:
        """Place of every value, by its path: `{"stages.0.lr": ("run.yaml", 31)}`."""
        return {".".join(str(key) for key in path): (node.file, node.line) for path, node in self.tree.walk() if path}

    def error(self, path: tuple[str | int, ...], message: str) -> ConfigError:
        """A ConfigError at the line of a key; of the nearest key above it where that key is not written."""
        return self.tree.at(path).error(message)


def load_run(path_or_name: str | Path, *, sets: Sequence[str] = ()) -> LoadedRun:
    """Read and check a run.

    Args:
        path_or_name: a YAML file, a folder with `run.yaml`, or the name of a recipe.
        sets: `a.b=value` overrides; the value is YAML, a stage is named by its index or its name.
    Raises:
        ConfigError: the first thing that is wrong, with file and line.
    """
    run, found = _load(path_or_name, sets)
    if found:
        rest = f" (and {len(found) - 1} more: `omniloom check` lists all)" if len(found) > 1 else ""
        raise ConfigError(found[0].message + rest, file=found[0].file, line=found[0].line)
    assert run is not None
    return run


def problems(path_or_name: str | Path, sets: Sequence[str] = ()) -> list[Problem]:
    """Everything that is wrong with a run file, in the order of its lines; empty if it can be loaded.

    What stops the reading itself (not YAML, a missing base) is one problem. The parts' own options are checked by
    `check_parts`, which imports them.
    """
    try:
        return _load(path_or_name, sets)[1]
    except ConfigError as error:
        return [Problem.of(error)]


def recipes() -> list[str]:
    """The names of the recipes that come with Omniloom."""
    folder = files("omniloom") / "recipes"
    found = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml"))


def dump(config: RunConfig) -> str:
    """The run as YAML, every default written out; it loads back to an equal run."""
    return yaml_text(_plain(config))


def digest(config: RunConfig) -> str:
    """sha256 of the run's values, in hexadecimal: the same for the same run, however it was written."""
    return hashlib.sha256(json.dumps(_plain(config), ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


def _plain(config: RunConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", by_alias=True)


def _load(path_or_name: str | Path, sets: Sequence[str]) -> tuple[LoadedRun | None, list[Problem]]:
    path = _locate(path_or_name)
    sources: list[Path] = []
    tree = _with_bases(path, path.parent, sources, shown=_shown(path_or_name, path))
    for text in sets:
        tree = overridden(tree, text)
    tree = expanded(tree, path.parent)
    config, found = checked(tree)
    return (LoadedRun(config, path.parent, tuple(sources), tree) if config is not None else None), found


def _locate(path_or_name: str | Path) -> Path:
    text = str(path_or_name)
    if "\0" in text:
        raise ConfigError("the name of a run file holds NUL.")
    path = Path(path_or_name)
    try:
        if path.is_dir():
            path = path / "run.yaml"
        elif not path.exists() and path.suffix not in (".yaml", ".yml") and path.name == text:
            return _recipe(text)
        return path.resolve()
    except OSError as error:
        raise ConfigError(f"cannot look for the run file {text[:80]!r}: {error.strerror}.") from error


def _recipe(name: str) -> Path:
    known = recipes()
    if name not in known:
        raise ConfigError(f"there is no run file, run folder or recipe {name!r}.{did_you_mean(name, known)}")
    return Path(str(files("omniloom") / "recipes" / f"{name}.yaml"))


def _shown(path_or_name: str | Path, path: Path) -> str:
    given = Path(path_or_name)
    return str(given / "run.yaml" if given.is_dir() else given) if given.exists() else str(path)


def _with_bases(path: Path, run_folder: Path, sources: list[Path], shown: str | None = None) -> Node:
    tree = read_file(path, name=shown or str(path))
    if not isinstance(tree.value, dict):
        raise tree.error(f"a run file is a mapping of keys, this is {kind_of(tree.value)}. Start with `name:`.")
    sources.append(path)
    extends = tree.value.get("extends")
    rest = Node({key: node for key, node in tree.value.items() if key != "extends"}, tree.file, tree.line)
    tree = moved(rest, path.parent, run_folder)
    if extends is None or extends.value is None:
        return tree
    if not isinstance(extends.value, str) or not extends.value:
        raise extends.error(f"`extends` must be a file or the name of a recipe, got {kind_of(extends.value)}.")
    try:
        is_file = extends.value.endswith((".yaml", ".yml"))
        base = (path.parent / extends.value).resolve() if is_file else _recipe(extends.value)
        is_there = base.is_file()
    except ConfigError as error:
        raise extends.error(error.message) from None
    except OSError as error:
        raise extends.error(f"cannot look for the base {extends.value[:80]!r}: {error.strerror}.") from None
    if base in sources:
        chain = " -> ".join(source.name for source in (*sources, base))
        raise extends.error(f"`extends` goes round in a circle: {chain}. Remove one of them.")
    if not is_there:
        raise extends.error(f"there is no base {extends.value!r}: looked at {base}. Paths start at this file's folder.")
    return merged(_with_bases(base, run_folder, sources), tree)
