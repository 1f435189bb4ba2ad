"""`omniloom list`: every part with its options, the recipes, and the packaged models and data."""

from __future__ import annotations

import inspect
import itertools
import json
import re
import sys
from typing import Annotated, Any

import typer

from omniloom.cli.terminal import columns, quiet_libraries, say, working

__all__ = ["list_parts"]

_EXTRA = ("recipes", "starter")


def list_parts(
    room: Annotated[
        str | None, typer.Argument(help="One room of parts (encoders, projectors, ...), `recipes` or `starter`.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """List every part with its options, the recipes, and the packaged models and data."""
    from omniloom.errors import ConfigError, did_you_mean
    from omniloom.registry import BUILT_IN

    if room is not None and room not in (*BUILT_IN, *_EXTRA):
        raise ConfigError(f"there is no room {room!r} to list.{did_you_mean(room, (*BUILT_IN, *_EXTRA))}")
    rooms = [room] if room is not None and room not in _EXTRA else [] if room is not None else list(BUILT_IN)
    with working("importing parts"):
        found: dict[str, Any] = {"rooms": {name: _parts(name) for name in rooms}}
        if room in (None, "recipes"):
            found["recipes"] = _recipes()
        if room in (None, "starter"):
            found["starter"] = _starter()
    if as_json:
        say(json.dumps(found, ensure_ascii=False, indent=1))
    else:
        _print(found)


def _parts(room: str) -> list[dict[str, Any]]:
    """Name, target, first sentence and options of every part of a room; `absent` says why one cannot be imported."""
    from omniloom.errors import ConfigError, MissingAssetError
    from omniloom.registry import find, names, schema

    quiet_libraries()
    parts: list[dict[str, Any]] = []
    for name, target in names(room).items():
        entry: dict[str, Any] = {"name": name, "target": target, "about": "", "sources": [], "options": []}
        entry["absent"] = ""
        try:
            part = find(room, name)
        except (ConfigError, MissingAssetError) as error:
            parts.append({**entry, "absent": str(error)})
            continue
        entry["about"] = _sentence((inspect.getdoc(part) or "").splitlines())
        entry["sources"] = _papers(part)
        # The tables of assets and data sets hold functions: what they take is no choice of a run file.
        if callable(part) and room not in ("assets", "datasets", "licences", "modalities"):
            entry["options"] = [_option(key, value) for key, value in schema(part).items()]
        parts.append(entry)
    return parts


def _papers(part: Any) -> list[str]:
    """The papers that a part or its file names, each once, in the order of the text."""
    module = sys.modules.get(getattr(part, "__module__", ""))
    text = f"{inspect.getdoc(part) or ''} {getattr(module, '__doc__', None) or ''}"
    return list(dict.fromkeys(re.findall(r"arXiv:\d{4}\.\d{4,5}", text)))


def _option(name: str, value: inspect.Parameter) -> dict[str, Any]:
    is_required = value.default is inspect.Parameter.empty
    kind = value.annotation if isinstance(value.annotation, str) else getattr(value.annotation, "__name__", "")
    default = None if is_required else value.default
    if not isinstance(default, str | int | float | bool | None | list | tuple | dict):
        default = repr(default)
    return {"name": name, "type": kind, "default": default, "is_required": is_required}


def _recipes() -> list[dict[str, str]]:
    from importlib.resources import files

    from omniloom.config import recipes

    rows = []
    for name in recipes():
        lines = (files("omniloom") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
        about = itertools.takewhile(lambda line: line.startswith("#"), lines)
        rows.append({"name": name, "about": _sentence([line.removeprefix("#").strip() for line in about])})
    return rows


def _sentence(lines: list[str]) -> str:
    """The first sentence of a text, over lines; a line that ends with none before an empty one is one too."""
    first = " ".join(itertools.takewhile(str.strip, lines))
    return re.split(r"(?<=[.?])\s", first, maxsplit=1)[0]


def _starter() -> list[dict[str, Any]]:
    from omniloom.starter import inventory

    return [entry._asdict() for entry in inventory()]


def _print(found: dict[str, Any]) -> None:
    for room, parts in found["rooms"].items():
        say(f"{room}:" if parts else f"{room}: none installed")
        for part in parts:
            say(f"  {part['name']}  -  {part['absent'] or part['about']}")
            if part["sources"]:
                say(f"      ({', '.join(part['sources'])})")
            for option in part["options"]:
                value = "required" if option["is_required"] else _written(option["default"])
                say(
                    f"      {option['name']}: {option['type']} = {value}"
                    if option["type"]
                    else f"      {option['name']} = {value}"
                )
        say()
    if "recipes" in found:
        say(
            "recipes (a run file by name, for `train`, `show` and `extends:`):" if found["recipes"] else "recipes: none"
        )
        for recipe in found["recipes"]:
            say(f"  {recipe['name']}  -  {recipe['about']}")
        say()
    if "starter" in found:
        say("starter (in a run file `starter:NAME`):")
        rows = [
            (
                "  " + entry["name"],
                entry["kind"],
                "here"
                if entry["is_cached"]
                else "absent"
                if entry["absent"]
                else f"{entry['download_mb']:.0f} MB to fetch",
                entry["licence"],
                entry["absent"] or entry["what"],
            )
            for entry in found["starter"]
        ]
        columns(("  name", "kind", "state", "licence", "what"), rows)


def _written(value: Any) -> str:
    """A default as it is written in a run file."""
    return json.dumps(value, ensure_ascii=False, default=repr)
