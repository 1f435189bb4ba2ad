"""Run files as text -> a tree of values that know their file and line.

YAML as its 1.2 core schema reads it: `true` and `false` are the only booleans, `1e-3` is a number, `yes` and `1:30`
are text. What a run file does not need is refused: tags, merge keys, two documents, keys written twice, numbers that
are not finite. Size, depth and expanded aliases are bounded before anything is built, so that no file can fill memory.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from omniloom.errors import ConfigError

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_NODES",
    "Node",
    "kind_of",
    "merged",
    "node_of",
    "read_file",
    "read_text",
    "yaml_text",
]

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_NODES = 20_000

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class Node:
    """A value with its place. `value`: a scalar, a list of nodes, or a dict of nodes.

    `line` counts from 1 and is the line of the key, where the value has one; None where there is no file.
    """

    value: Any
    file: str
    line: int | None = None

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def at(self, path: tuple[str | int, ...]) -> Node:
        """The node at a path, or the last one on the way to it that exists."""
        node = self
        for key in path:
            inner = node.value
            if isinstance(inner, dict) and key in inner:
                node = inner[key]
            elif isinstance(inner, list) and isinstance(key, int) and key < len(inner):
                node = inner[key]
            else:
                break
        return node

    def walk(self, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Node]]:
        """Every node below this one, with its path, parents first."""
        yield path, self
        inner = self.value
        pairs = inner.items() if isinstance(inner, dict) else enumerate(inner) if isinstance(inner, list) else ()
        for key, node in pairs:
            yield from node.walk((*path, key))

    def error(self, message: str) -> ConfigError:
        """A ConfigError at this place."""
        return ConfigError(message, file=self.file, line=self.line)


def node_of(value: Any, file: str, line: int | None = None) -> Node:
    """Plain values as a tree whose nodes all have the same place."""
    if isinstance(value, dict):
        return Node({str(key): node_of(item, file, line) for key, item in value.items()}, file, line)
    if isinstance(value, (list, tuple)):
        return Node([node_of(item, file, line) for item in value], file, line)
    return Node(value, file, line)


def kind_of(value: Any) -> str:
    """What a value is, for a message: a mapping, a list, empty, or the value itself."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return "empty" if value is None else f"the value {str(value)[:40]!r}"


def merged(base: Node, over: Node) -> Node:
    """`over` on top of `base`: mappings are merged key by key, everything else replaces.

    A mapping with another `type` or `component` is another part and replaces the whole mapping; null over a mapping
    removes it, where null is no value of its own.
    """
    if not isinstance(base.value, dict) or not isinstance(over.value, dict) or _is_other_part(base.value, over.value):
        return over
    result = dict(base.value)
    for key, node in over.value.items():
        known = result.get(key)
        if known is not None and isinstance(known.value, dict) and node.value is None:
            if is_null_a_value({**base.value, **over.value}, key):
                result[key] = node
            else:
                del result[key]
        else:
            result[key] = node if known is None else merged(known, node)
    return Node(result, over.file, over.line)


def is_null_a_value(table: Mapping[str, Any], key: str) -> bool:
    """Whether null says something there: no projector between an encoder and what reads its rows."""
    return key == "projector" and "encoder" in table


def _is_other_part(base: dict[str, Node], over: dict[str, Node]) -> bool:
    return any(
        key in over and (key not in base or over[key].value != base[key].value)
        for key in ("type", "component")
        if "type" in base or "component" in base
    )


def read_file(path: Path, *, name: str | None = None) -> Node:
    """A YAML file as a tree; `name` stands for the file in messages, by default its path.

    Raises:
        ConfigError: the file is missing, too large, not text, or not YAML as described above.
    """
    name = name or str(path)
    try:
        if not path.is_file():
            raise ConfigError(f"there is no run file {name!r}. Give a YAML file, a run folder, or a recipe's name.")
        if (size := os.path.getsize(path)) > MAX_BYTES:
            raise ConfigError(f"the file holds {size} bytes, a run file at most {MAX_BYTES}.", file=name)
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the run file {name!r}: {error}.") from error
    if (zero := data.find(b"\0")) >= 0:
        line = data.count(b"\n", 0, zero) + 1
        raise ConfigError("the file holds a NUL byte, so it is not text. Is it a run file?", file=name, line=line)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError("the file is not UTF-8 text. Save it as UTF-8.", file=name, line=line) from None
    return read_text(text, name)


def read_text(text: str, file: str, *, has_lines: bool = True) -> Node:
    """YAML text as a tree; `has_lines` False leaves the lines out, for text that is no file's."""
    return _Reader(text, file, has_lines).read()


class _Reader:
    """Builds nodes from YAML events, without recursion into what the text could make deep."""

    def __init__(self, text: str, file: str, has_lines: bool) -> None:
        self.text = text
        self.file = file
        self.has_lines = has_lines
        self.anchors: dict[str, tuple[Node, int] | None] = {}
        self.count = 0

    def read(self) -> Node:
        try:
            self.events = iter(list(_bounded(yaml.parse(self.text, Loader=yaml.SafeLoader), self)))
            next(self.events)
            event = next(self.events)
            if isinstance(event, yaml.StreamEndEvent):
                raise self.error("the file is empty; expected keys such as `backbone:` and `modalities:`.", None)
            node = self.node(next(self.events), None)
            next(self.events)
            event = next(self.events)
            if not isinstance(event, yaml.StreamEndEvent):
                raise self.error("a second document starts here (`---`); a run file is one document.", event.start_mark)
            return node
        except yaml.MarkedYAMLError as error:
            what = " ".join(part for part in (error.context, error.problem) if part)
            message = f"this is not YAML: {_tidy(what)}. {_remedy(what)}"
            is_opened = error.context_mark is not None and ("flow" in what or "quoted" in what)
            mark = error.context_mark if is_opened else error.problem_mark or error.context_mark
            raise self.error(message, mark) from None
        except yaml.YAMLError as error:
            position = getattr(error, "position", 0)
            line = self.text.count("\n", 0, position) + 1 if self.has_lines else None
            raise ConfigError("the text holds a control character. Remove it.", file=self.file, line=line) from None

    def error(self, message: str, mark: Any) -> ConfigError:
        line = mark.line + 1 if mark is not None and self.has_lines else None
        return ConfigError(message, file=self.file, line=line)

    def node(self, event: Any, key_mark: Any) -> Node:
        mark = key_mark or event.start_mark
        line = mark.line + 1 if self.has_lines else None
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise self.error(f"the alias *{event.anchor} names no anchor above it.", mark)
            known = self.anchors[event.anchor]
            if known is None:
                raise self.error(f"the anchor &{event.anchor} contains itself.", mark)
            self.grow(known[1], mark)
            return Node(known[0].value, self.file, line)
        before = self.count
        self.grow(1, mark)
        if event.anchor:
            self.anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = Node(self.scalar(event, mark), self.file, line)
        elif event.tag is not None:
            raise self.error(f"the tag {event.tag!r} is refused: run files hold plain values only.", event.start_mark)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = Node(self.sequence(), self.file, line)
        else:
            node = Node(self.mapping(), self.file, line)
        if event.anchor:
            self.anchors[event.anchor] = (node, self.count - before)
        return node

    def grow(self, by: int, mark: Any) -> None:
        self.count += by
        if self.count > MAX_NODES:
            raise self.error(f"more than {MAX_NODES} values, aliases counted at every use. Is it a run file?", mark)

    def sequence(self) -> list[Node]:
        items = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.node(event, None))
        return items

    def mapping(self) -> dict[str, Node]:
        items: dict[str, Node] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent) or event.tag is not None:
                raise self.error(
                    "a key must be plain text; quote it if it starts with `*`, `[`, `{`.", event.start_mark
                )
            key = event.value
            if key == "<<" and event.implicit[0]:
                raise self.error("merge keys (`<<`) are refused. Write the keys, or use `extends:`.", event.start_mark)
            if key in items:
                first = f", first on line {items[key].line}" if self.has_lines else ""
                raise self.error(f"the key {key!r} is written twice{first}. Remove one.", event.start_mark)
            self.text_of(key, event.start_mark)
            items[key] = self.node(next(self.events), event.start_mark)
        return items

    def scalar(self, event: Any, mark: Any) -> Any:
        text = event.value
        if event.tag is not None and event.tag != "tag:yaml.org,2002:str" and event.tag != "!":
            raise self.error(f"the tag {event.tag!r} is refused: run files hold plain values only.", event.start_mark)
        if event.tag is not None or not event.implicit[0]:
            return self.text_of(text, mark)
        if _NULL.fullmatch(text):
            return None
        if _BOOL.fullmatch(text):
            return text.lower() == "true"
        if _INT.fullmatch(text):
            if len(text) > 20:
                raise self.error(f"the number {text[:20]}... has {len(text)} digits. Quote it if it is text.", mark)
            return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
        if _FLOAT.fullmatch(text):
            number = float(text) if text[-1] in "0123456789." else math.inf
            if not math.isfinite(number):
                raise self.error(f"the number {text[:40]} is not finite.", mark)
            return number
        return self.text_of(text, mark)

    def text_of(self, text: str, mark: Any) -> str:
        if any(char == "\0" or "\ud800" <= char <= "\udfff" for char in text):
            raise self.error("a text holds NUL or half a surrogate pair. Remove it.", mark)
        return text


def _bounded(events: Iterator[Any], reader: _Reader) -> Iterator[Any]:
    depth = 0
    for event in events:
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            depth += 1
            if depth > MAX_DEPTH:
                raise reader.error(f"values are nested more than {MAX_DEPTH} deep. Is it a run file?", event.start_mark)
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            depth -= 1
        yield event


def _tidy(problem: str) -> str:
    return " ".join(problem.split()).replace("'\\t'", "a tab")


def _remedy(problem: str) -> str:
    if "'\\t'" in problem:
        return "Indent with spaces, never with tabs."
    if "mapping values are not allowed" in problem:
        return "Look for a wrong indentation, or quote a text that holds `: `."
    if "flow" in problem or "quoted" in problem:
        return "Close the bracket or quote that opens on this line."
    return "Look at the indentation, brackets and quotes up to this line."


class _Dumper(yaml.SafeDumper):
    """Writes text quoted wherever YAML 1.1 or 1.2 would read it as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _pattern, _tag in ((_NULL, "null"), (_BOOL, "bool"), (_INT, "int"), (_FLOAT, "float")):
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern.pattern})\Z"), None)


def _write_text(dumper: _Dumper, text: str) -> Any:
    # Plain and single-quoted text may be broken over lines at these; readers then fold them into blanks.
    style = '"' if any(char in "\x85\u2028\u2029\ufeff" or (char < " " and char != "\n") for char in text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _write_text)


def yaml_text(value: Any) -> str:
    """Plain values as YAML that `read_text` reads back equal, keys in their own order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
