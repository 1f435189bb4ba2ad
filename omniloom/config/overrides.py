"""`--set a.b=value`: one value of a run changed from the command line."""

from __future__ import annotations

from omniloom.config.reading import Node, is_null_a_value, kind_of, merged, read_text
from omniloom.config.schema import dotted, known_keys
from omniloom.errors import ConfigError, did_you_mean

__all__ = ["overridden"]

_PART_PLACES = ("processor", "encoder", "projector", "codec", "layout", "generator")
_TABLES = ("adapters", "components", "modalities", "fusers", "data", "evaluation")


def overridden(tree: Node, text: str) -> Node:
    """`tree` with one `a.b=value` set."""
    place = f"--set {text[:80]}"
    path_text, equals, value_text = text.partition("=")
    keys = path_text.strip().split(".")
    if not equals or not all(keys):
        example = "expected `key.key=value`, for instance `stages.0.steps=5`"
        raise ConfigError(f"cannot read {text[:80]!r}; {example}.", file="--set")
    value = read_text(value_text, place, has_lines=False) if value_text.strip() else Node("", place)
    return _replaced(tree, keys, value, place, done=())


def _replaced(node: Node, keys: list[str], value: Node, place: str, done: tuple[str | int, ...]) -> Node:
    if not keys:
        return merged(node, value)
    key, inner = keys[0], node.value
    if isinstance(inner, list):
        index = _index(inner, key, place, done)
        item = _replaced(inner[index], keys[1:], value, place, (*done, index))
        return Node([*inner[:index], item, *inner[index + 1 :]], node.file, node.line)
    if isinstance(inner, str) and done and done[-1] in _PART_PLACES:
        inner = {"type": node}
    if inner is None:
        inner = {}
    if not isinstance(inner, dict):
        raise ConfigError(f"{dotted(done)!r} is {kind_of(inner)}, it has no key {key!r}.", file=place)
    known = known_keys(done)
    is_row = len(done) == 1 and done[0] in _TABLES
    if key not in inner and ((known and key not in known) or (is_row and len(keys) > 1)):
        where = dotted(done) or "a run file"
        raise ConfigError(f"{where} has no key {key!r}.{did_you_mean(key, known or inner)}", file=place)
    below = _replaced(inner.get(key, Node(None, place)), keys[1:], value, place, (*done, key))
    changed = {**inner, key: below}
    is_over_mapping = below.value is None and isinstance(getattr(inner.get(key), "value", None), dict)
    if len(keys) == 1 and is_over_mapping and not is_null_a_value(inner, key):
        del changed[key]
    return Node(changed, node.file, node.line)


def _index(items: list[Node], key: str, place: str, done: tuple[str | int, ...]) -> int:
    if key.isascii() and key.isdigit() and len(key) < 10 and int(key) < len(items):
        return int(key)
    rows = [item.value if isinstance(item.value, dict) else {} for item in items]
    named = [row["name"].plain() if "name" in row else None for row in rows]
    if key in named:
        return named.index(key)
    known = [str(index) for index in range(len(items))] + [name for name in named if isinstance(name, str)]
    raise ConfigError(f"{dotted(done)} has no entry {key!r}.{did_you_mean(key, known)}", file=place)
