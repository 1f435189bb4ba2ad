"""A tree of values against the schema and the rules: the run, or everything that is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from omniloom.config.reading import Node
from omniloom.config.rules import rules
from omniloom.config.schema import RunConfig, dotted, known_keys
from omniloom.errors import ConfigError, did_you_mean

__all__ = ["Problem", "checked"]

_Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and where. `file` and `line` are None where there is none."""

    file: str | None
    line: int | None
    message: str

    @classmethod
    def of(cls, error: ConfigError) -> Problem:
        """The problem an error tells of."""
        return cls(error.file, error.line, error.message)

    def __str__(self) -> str:
        return str(ConfigError(self.message, file=self.file, line=self.line))


def checked(tree: Node) -> tuple[RunConfig | None, list[Problem]]:
    """The run, or what is wrong, in the order of the lines.

    What is malformed is left out to check the rest against itself, so that one run shows every problem.
    """
    plain = tree.plain()
    tables = {name: plain.get(name) for name in ("data", "components")}
    declared = {name: set(rows) if isinstance(rows, dict) else set() for name, rows in tables.items()}
    config, bad = _validated(plain)
    found = list(bad)
    kept = list(range(len(config.stages))) if config is not None else []
    if config is None:
        plain = _without_keys(plain, [path for path, _ in bad])
        config, worse = _validated(plain)
        kept = list(range(len(config.stages))) if config is not None else []
        if config is None:
            plain, kept = _without_rows(plain, [path for path, _ in worse])
            config, _ = _validated(plain)
    if config is not None:
        for path, message in rules(config, declared, is_whole=not bad):
            found.append((("stages", kept[int(path[1])], *path[2:]) if path[0] == "stages" else path, message))
    problems = [Problem(node.file, node.line, message) for path, message in found for node in [tree.at(path)]]
    files = list(dict.fromkeys(node.file for _, node in tree.walk()))
    problems.sort(key=lambda problem: (files.index(problem.file or ""), problem.line or 0))
    return (None if problems else config), problems


def _validated(plain: Any) -> tuple[RunConfig | None, list[tuple[_Path, str]]]:
    try:
        return RunConfig.model_validate(plain), []
    except ValidationError as error:
        details = error.errors(include_url=False)
        return None, [(tuple(detail["loc"]), _message(tuple(detail["loc"]), detail)) for detail in details]


def _without_keys(value: Any, bad: list[_Path]) -> Any:
    """The values without the malformed keys, each by itself; entries of lists stay."""
    if isinstance(value, list):
        return [_without_keys(item, _below(bad, index)) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    return {key: _without_keys(item, _below(bad, key)) for key, item in value.items() if (key,) not in bad}


def _below(bad: list[_Path], key: str | int) -> list[_Path]:
    return [path[1:] for path in bad if len(path) > 1 and path[0] == key]


def _without_rows(plain: dict[str, Any], bad: list[_Path]) -> tuple[dict[str, Any], list[int]]:
    """The run without malformed rows of tables and keys at the top; and which stages stay.

    What a run needs is put in where it had to go, so that the rest can be read.
    """
    wrong: dict[str, set[str | int]] = {}
    for path in bad:
        wrong.setdefault(str(path[0]), set()).add(path[1] if len(path) > 1 else "")
    rest: dict[str, Any] = {"name": "run", "backbone": {"id": "none"}, "modalities": {}}
    kept: list[int] = []
    for key in RunConfig.model_fields:
        rows, out = plain.get(key), wrong.get(key, set())
        if key not in plain or "" in out or (out and key == "backbone"):
            continue
        if isinstance(rows, list):
            kept = [index for index in range(len(rows)) if index not in out]
            rows = [rows[index] for index in kept]
        elif isinstance(rows, dict):
            rows = {name: row for name, row in rows.items() if name not in out or key == "backbone"}
        rest[key] = rows
    return rest, kept


def _message(path: tuple[str | int, ...], detail: Any) -> str:
    where = dotted(path)
    kind = detail["type"]
    if kind == "missing":
        return f"{dotted(path[:-1]) or 'the run file'} needs the key {path[-1]!r}."
    if kind == "extra_forbidden":
        hint = did_you_mean(str(path[-1]), known_keys(path[:-1]))
        return f"{dotted(path[:-1]) or 'a run file'} has no key {path[-1]!r}.{hint}"
    reason = detail["msg"].removeprefix("Value error, ")
    if where.endswith(".[key]"):
        where = dotted(path[:-1])
    if kind == "model_type":
        reason = "must be a mapping of keys"
    if kind == "value_error" and isinstance(detail["input"], dict):
        return f"{where} {reason}."
    got = repr(detail["input"])
    return f"{where}: {reason[0].lower() + reason[1:]}, got {got if len(got) <= 80 else got[:77] + '...'}."
