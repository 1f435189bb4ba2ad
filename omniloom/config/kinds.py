"""The kinds of values in a run file: parts, chains, names, counts; and what every mapping of it holds to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictInt

__all__ = ["Chain", "Count", "Name", "Natural", "OwnPart", "PartSpec", "Rate", "Runs", "Strict", "Word"]


def _part(value: Any) -> Any:
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, Mapping):
        keys = [key for key in ("type", "component") if key in value]
        if len(keys) == 1 and isinstance(value[keys[0]], str) and value[keys[0]].strip():
            if keys == ["component"] and len(value) > 1:
                raise ValueError("a named component takes no options here; set them under `components`")
            return dict(value)
    raise ValueError("must be a part's name, or a mapping with `type: NAME` and options, or `component: NAME`")


def _own_part(value: Any) -> Any:
    if isinstance(value, Mapping) and isinstance(value.get("type"), str) and value["type"].strip():
        return dict(value)
    raise ValueError("must be a mapping with `type: NAME` and options")


def _chain(value: Any) -> Any:
    if isinstance(value, list):
        if not value:
            raise ValueError("a chain of projectors needs at least one part")
        return [_part(item) for item in value]
    return _part(value)


def _name(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", value):
        raise ValueError("must be a lower-case identifier: a letter, then letters, digits or `_`, at most 32 in all")
    return value


def _learning_rate(value: Any) -> Any:
    def positive(number: Any) -> bool:
        return isinstance(number, (int, float)) and not isinstance(number, bool) and 0 < number <= 100

    if positive(value):
        return float(value)
    if isinstance(value, Mapping) and value and all(positive(item) for item in value.values()):
        return {key: float(item) for key, item in value.items()}
    raise ValueError("must be a positive number, or a mapping of globs to positive numbers")


def _runs(value: Any) -> Any:
    inside = list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else [value]
    if not inside or not all(isinstance(run, str) and run.strip() for run in inside):
        raise ValueError("must be a run folder, a list of them, or a mapping of places to them")
    return {str(place): run for place, run in value.items()} if isinstance(value, Mapping) else value


PartSpec = Annotated[str | dict[str, Any], BeforeValidator(_part)]
"""A part: its name, `{type: NAME, option: value}`, or `{component: NAME}`."""

OwnPart = Annotated[dict[str, Any], BeforeValidator(_own_part)]
Chain = Annotated[str | dict[str, Any] | list[str | dict[str, Any]], BeforeValidator(_chain)]
Name = Annotated[str, AfterValidator(_name)]
Count = Annotated[StrictInt, Field(ge=1, le=10**12)]
Natural = Annotated[StrictInt, Field(ge=0, le=10**12)]
Word = Annotated[str, Field(min_length=1)]
Runs = Annotated[str | list[str] | dict[str, str], BeforeValidator(_runs)]
Rate = Annotated[float | dict[str, float], BeforeValidator(_learning_rate)]


class Strict(BaseModel):
    """A mapping of a run file: no unknown key, no value of another type, nothing changed later."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True, populate_by_name=True
    )
