"""The parts of a run against their signatures. Imports the parts, so it may load torch."""

from __future__ import annotations

import inspect
from typing import Any

from omniloom.config.checking import Problem
from omniloom.config.loading import LoadedRun
from omniloom.config.rules import part_places
from omniloom.config.table import component_of
from omniloom.errors import ConfigError, MissingAssetError, did_you_mean
from omniloom.registry import find, mistyped, schema, split_spec

__all__ = ["check_parts"]

_WIRED_BACKBONE = ("id", "dtype", "template", "system")


# Options that hold parts themselves, and the room these are of.
_INNER = {"processors": "processors", "encoders": "encoders", "projector": "projectors"}


def check_parts(run: LoadedRun) -> list[Problem]:
    """Every part that is unknown, is not installed, or whose options its signature does not take.

    An option must be a parameter after the star; a parameter without a default must be given. Payloads are held to
    what the processor or codec reads.
    """
    found = []
    for path, room, spec in part_places(run.config):
        if component_of(spec) is not None:
            continue
        name, options = split_spec(spec, where=room)
        try:
            part = find(room, name, base=run.base_folder)
        except (ConfigError, MissingAssetError) as error:
            found.append(_problem(run, path, "type", getattr(error, "message", str(error))))
            continue
        if not callable(part):
            found.append(_problem(run, path, "type", f"{name!r} is no class but {type(part).__name__}."))
            continue
        found += [_problem(run, path, option, message) for option, message in _wrong_options(part, room, name, options)]
        found += _wrong_payload(run, path, room, name, part)
        for option, value in options.items():
            for inner in value if isinstance(value, list) else [value]:
                found += [_problem(run, path, option, message) for message in _wrong_inner(run, option, inner)]
    return found


def _wrong_inner(run: LoadedRun, option: str, spec: Any) -> list[str]:
    """What is wrong with a part that stands inside another's options."""
    if option not in _INNER or not isinstance(spec, str | dict):
        return []
    room = _INNER[option]
    try:
        name, options = split_spec(spec, where=f"a part of `{option}`")
        part = find(room, name, base=run.base_folder)
    except (ConfigError, MissingAssetError) as error:
        return [getattr(error, "message", str(error))]
    return [message for _, message in _wrong_options(part, room, name, options)]


def _wrong_options(part: Any, room: str, name: str, options: dict[str, Any]) -> list[tuple[str, str]]:
    known: dict[str, inspect.Parameter] = schema(part)
    what = f"{room.rstrip('s')} {name!r}"
    wired = _WIRED_BACKBONE if room == "backbones" else ()
    choices = [key for key in known if key not in wired]
    wrong = [
        (option, f"{what} has no option {option!r}.{did_you_mean(option, choices)}")
        for option in options
        if option not in choices
    ]
    needed = [key for key in choices if known[key].default is inspect.Parameter.empty and key not in options]
    wrong += [(key, f"{what} needs the option {key!r}, which has no default.") for key in needed]
    return wrong + [(key, f"{what}: {message}") for key, message in mistyped(part, options)]


def _wrong_payload(run: LoadedRun, path: tuple[str | int, ...], room: str, name: str, part: Any) -> list[Problem]:
    kind = getattr(part, "payload_kind", None)
    if path[0] != "modalities" or room not in ("processors", "codecs") or not isinstance(kind, str):
        return []
    modality = str(path[1])
    payload = run.config.modalities[modality].payload
    if kind == payload:
        return []
    reader = "codec" if room == "codecs" else "processor"
    message = f"modality {modality!r} holds payloads of kind {payload!r}, but its {reader} {name!r} reads {kind!r}."
    node = run.tree.at(("modalities", modality, "payload"))
    return [Problem(node.file, node.line, message)]


def _problem(run: LoadedRun, path: tuple[str | int, ...], key: str, message: str) -> Problem:
    node = run.tree.at((*path, key))
    return Problem(node.file, node.line, message)
