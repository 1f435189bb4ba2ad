"""One record of a conversation -> a Sample. The same parts are read from JSON lines and from API requests.

    {"id": "a1", "group": "anna", "messages": [
        {"role": "user", "content": [{"type": "image", "path": "cat.png"}, {"type": "text", "text": "What is this?"}]},
        {"role": "assistant", "content": "A cat."}], "meta": {"licence": "CC0"}}

`id`, `group` and `meta` are optional, a string stands for one text. A message may say `learn`: whether its tokens bear
loss. A part is text, or an item whose `type` is the name of a modality and whose medium is a `path` below the source's
root, or `data`: a data URI, a nested list of numbers, or a mapping of a payload's fields such as
{"values": ..., "rate_hz": 50}. Media are not opened here: the item's payload is the reference, which
`omniloom.data.load_media` replaces by what it names.

Parts in OpenAI's form are read too; which modality they mean, `OPENAI_PARTS` says.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from omniloom.errors import DataError, did_you_mean
from omniloom.sequence import Item, Sample, Text, Turn

__all__ = ["OPENAI_PARTS", "modality_of", "parse_line", "parse_messages", "parse_record"]

OPENAI_PARTS: dict[str, tuple[str, ...]] = {
    "image_url": ("image",),
    "input_audio": ("speech", "audio", "sound"),
    "video_url": ("video",),
}
"""Type of an OpenAI part -> the modalities it may mean; the first that the model has is taken."""

_RECORD = ("id", "group", "messages", "meta")
_MESSAGE = ("role", "content", "learn")
_TEXT = ("type", "text", "learn", "weight")
_ITEM = ("type", "path", "data", "role", "t0", "t1", "weight")
_OPENAI = ("type", "weight", "role", "t0", "t1")
_ROLES = ("system", "user", "assistant")
_SOURCES = ("path", "base64", "data_uri", "url")


def modality_of(name: str, known: Iterable[str]) -> str:
    """The modality that a part's type means in a model with the modalities `known`; the type itself for all others."""
    has = set(known)
    meant = () if name in has else OPENAI_PARTS.get(name, ())
    return next((modality for modality in meant if modality in has), name)


def parse_line(line: bytes, *, name: str, file: str | None = None, number: int | None = None) -> Sample:
    """The sample of one line of JSON; `name` is its id unless the record has one.

    Raises:
        DataError: not JSON, or not a record as described above; with `file` and the line `number`.
    """
    try:
        record = json.loads(line.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_not_finite)
    except UnicodeDecodeError:
        raise DataError("the record is not UTF-8 text. Save the file as UTF-8.", file=file, line=number) from None
    except json.JSONDecodeError as error:
        message = f"the record is not JSON: {error.msg} at character {error.pos + 1}. One record stands on one line."
        raise DataError(message, file=file, line=number) from None
    except RecursionError:
        raise DataError("the record is nested too deep to be read.", file=file, line=number) from None
    except ValueError as error:
        raise DataError(f"the record is refused: {error}.", file=file, line=number) from None
    return parse_record(record, name=name, file=file, number=number)


def parse_record(record: Any, *, name: str, file: str | None = None, number: int | None = None) -> Sample:
    """The sample of one record; `name` is its id unless the record has one.

    Raises:
        DataError: an unknown or missing key, a value of the wrong type, a part without a medium.
    """

    def fail(message: str) -> NoReturn:
        raise DataError(message, file=file, line=number)

    _require(isinstance(record, Mapping), fail, f"a record is a mapping with `messages`, got {_shown(record)}.")
    _keys(record, _RECORD, "the record", fail)
    _require("messages" in record, fail, "the record needs the key 'messages', a list of {role, content}.")
    for key in ("id", "group"):
        value = record.get(key)
        is_text = value is None or (isinstance(value, str) and value != "")
        _require(is_text, fail, f"`{key}` must be text, got {_shown(value)}.")
    meta = record.get("meta") or {}
    _require(isinstance(meta, Mapping), fail, f"`meta` must be a mapping, got {_shown(meta)}.")
    turns = _turns(record["messages"], fail)
    return Sample(record.get("id") or name, turns, group=record.get("group"), meta=dict(meta))


def parse_messages(messages: Any) -> tuple[Turn, ...]:
    """The turns of a list of {role, content}.

    Raises:
        DataError: as `parse_record`, without a place.
    """

    def fail(message: str) -> NoReturn:
        raise DataError(message)

    return _turns(messages, fail)


_Fail = Callable[[str], NoReturn]


def _turns(messages: Any, fail: _Fail) -> tuple[Turn, ...]:
    is_list = isinstance(messages, list) and bool(messages)
    _require(is_list, fail, f"`messages` must be a list with at least one message, got {_shown(messages)}.")
    return tuple(_turn(message, index, fail) for index, message in enumerate(messages))


def _turn(message: Any, index: int, fail: _Fail) -> Turn:
    where = f"message {index}"
    what = "a mapping with `role` and `content`"
    _require(isinstance(message, Mapping), fail, f"{where} must be {what}, got {_shown(message)}.")
    _keys(message, _MESSAGE, where, fail)
    role, content, learn = message.get("role"), message.get("content"), message.get("learn")
    if not isinstance(role, str) or role not in _ROLES:
        fail(f"{where} has the role {_shown(role)}.{did_you_mean(str(role), _ROLES)}")
    _truth(learn, where, fail)
    if isinstance(content, str):
        parts: list[Any] = [{"type": "text", "text": content}]
    elif isinstance(content, list):
        parts = content
    else:
        fail(f"the content of {where} must be text or a list of parts, got {_shown(content)}.")
    read = tuple(_part(part, f"part {place} of {where}", fail) for place, part in enumerate(parts))
    return Turn(role, read, learn)  # type: ignore[arg-type]


def _part(part: Any, where: str, fail: _Fail) -> Text | Item:
    if isinstance(part, str):
        part = {"type": "text", "text": part}
    _require(isinstance(part, Mapping), fail, f"{where} must be text or a mapping with `type`, got {_shown(part)}.")
    kind = part.get("type")
    if not isinstance(kind, str) or not kind:
        fail(f"{where} needs a `type`: 'text' or the name of a modality, got {_shown(kind)}.")
    weight = _number(part, "weight", where, fail)
    _require(weight is None or weight >= 0, fail, f"`weight` of {where} must not be negative, got {weight}.")
    if kind == "text":
        _keys(part, _TEXT, where, fail)
        text, learn = part.get("text"), part.get("learn")
        _require(isinstance(text, str), fail, f"`text` of {where} must be text, got {_shown(text)}.")
        _truth(learn, where, fail)
        return Text(str(text), learn, 1.0 if weight is None else weight)
    payload = (
        _openai(part, kind, where, fail) if kind in OPENAI_PARTS and kind in part else _reference(part, where, fail)
    )
    t0, t1 = _number(part, "t0", where, fail), _number(part, "t1", where, fail)
    _require(t0 is None or t1 is None or t0 <= t1, fail, f"{where} ends before it starts: t0 {t0}, t1 {t1}.")
    role = part.get("role")
    _require(role in (None, "in", "out"), fail, f"`role` of {where} must be 'in' or 'out', got {_shown(role)}.")
    return Item(kind, payload, role, t0, t1, 1.0 if weight is None else weight)


def _reference(part: Mapping[str, Any], where: str, fail: _Fail) -> Any:
    """What `omniloom.media.load` reads: {"path": ...}, {"data_uri": ...}, or the numbers themselves."""
    _keys(part, _ITEM, where, fail)
    if ("path" in part) == ("data" in part):
        fail(f"{where} needs exactly one of `path` and `data`.")
    if "path" in part:
        path = part["path"]
        _require(isinstance(path, str) and path != "", fail, f"`path` of {where} must be text, got {_shown(path)}.")
        return {"path": path}
    data = part["data"]
    if isinstance(data, str):
        is_uri = data[:5].lower() == "data:"
        _require(is_uri, fail, f"`data` of {where} must be a data URI that starts with 'data:', got {_shown(data)}.")
        return {"data_uri": data}
    if isinstance(data, Mapping) and (wrong := next((key for key in _SOURCES if key in data), None)):
        fail(f"`data` of {where} holds {wrong!r}. Write a path as `path`, encoded bytes as a data URI.")
    is_filled = isinstance(data, (list, Mapping)) and bool(data)
    _require(is_filled, fail, f"`data` of {where} must be a data URI, a list or a mapping, got {_shown(data)}.")
    return data


def _openai(part: Mapping[str, Any], kind: str, where: str, fail: _Fail) -> Any:
    _keys(part, (*_OPENAI, kind), where, fail)
    inner = part[kind]
    _require(isinstance(inner, Mapping), fail, f"`{kind}` of {where} must be a mapping, got {_shown(inner)}.")
    if kind == "input_audio":
        _keys(inner, ("data", "format"), f"`{kind}` of {where}", fail)
        data = inner.get("data")
        is_text = isinstance(data, str) and data != ""
        _require(is_text, fail, f"`data` of {where} must be base64 text, got {_shown(data)}.")
        return {"base64": data}
    _keys(inner, ("url", "detail"), f"`{kind}` of {where}", fail)
    url = inner.get("url")
    _require(isinstance(url, str) and url != "", fail, f"`url` of {where} must be a data URI, got {_shown(url)}.")
    return {"data_uri": url} if str(url)[:5].lower() == "data:" else {"url": url}


def _number(part: Mapping[str, Any], key: str, where: str, fail: _Fail) -> float | None:
    value = part.get(key)
    if value is None:
        return None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15
    _require(is_number and math.isfinite(value), fail, f"`{key}` of {where} must be a number, got {_shown(value)}.")
    return float(value)


def _truth(value: Any, where: str, fail: _Fail) -> None:
    is_truth = value is None or isinstance(value, bool)
    _require(is_truth, fail, f"`learn` of {where} must be true or false, got {_shown(value)}.")


def _keys(mapping: Mapping[str, Any], known: Iterable[str], where: str, fail: _Fail) -> None:
    for key in mapping:
        if key not in known:
            fail(f"{where} has the unknown key {key!r}.{did_you_mean(str(key), known)}")


def _require(is_right: bool, fail: _Fail, message: str) -> None:
    if not is_right:
        fail(message)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} is written twice in one mapping")
    return result


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number of JSON")
