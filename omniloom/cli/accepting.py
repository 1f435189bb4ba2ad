"""The recorded counts of a run file, written into its text: every comment and every blank stays where it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from omniloom.config import LoadedRun

__all__ = ["accept_counts", "with_counts"]


def accept_counts(run: LoadedRun, counts: Sequence[int]) -> list[str]:
    """Write `parameters: COUNT` into every stage of the run file; returns the names of the stages that changed.

    Raises:
        ConfigError: the stages are not written in the run file itself, or it is that of a trained run.
    """
    from omniloom.errors import ConfigError
    from omniloom.files import write_whole

    path = run.sources[0]
    if (path.parent / "manifest.json").is_file():
        raise ConfigError(
            "this run is trained; its file stays as it is. Accept in the file it was made from.", file=str(path)
        )
    stages = run.config.stages
    changed = [stage.name for stage, count in zip(stages, counts, strict=True) if stage.parameters != count]
    if not changed:
        return []
    data = path.read_bytes()
    mark = b"\xef\xbb\xbf" if data.startswith(b"\xef\xbb\xbf") else b""
    text = data.removeprefix(mark).decode("utf-8")
    write_whole(path, mark + with_counts(text, counts, path).encode())
    return changed


def with_counts(text: str, counts: Sequence[int], path: Path) -> str:
    """The text of a run file with the count of every stage in it.

    Raises:
        ConfigError: the text has no stages of its own, or one of them is an alias of another.
    """
    import yaml

    from omniloom.config.reading import read_text
    from omniloom.errors import ConfigError

    found = _value(yaml.compose(text, Loader=yaml.SafeLoader), "stages")
    stages = found.value if isinstance(found, yaml.SequenceNode) else []
    if len(stages) != len(counts):
        raise ConfigError(
            "the stages are not written in this file. Accept them in the file that has them.", file=str(path)
        )
    if len({id(stage) for stage in stages}) != len(stages):
        raise ConfigError("a stage is an alias of another, so they cannot have counts of their own.", file=str(path))
    result = text
    for stage, count in reversed(list(zip(stages, counts, strict=True))):
        result = _with_count(result, stage, count)
    before, after = read_text(text, str(path)).plain(), read_text(result, str(path)).plain()
    for stage, count in zip(before["stages"], counts, strict=True):
        stage["parameters"] = count
    if after != before:
        raise ConfigError(
            "cannot write the counts without changing more. Write `parameters:` yourself.", file=str(path)
        )
    return result


def _with_count(text: str, stage: Any, count: int) -> str:
    known = _value(stage, "parameters")
    if known is not None:
        start, end = known.start_mark.index, known.end_mark.index
        blank = " " if text[start - 1 : start] == ":" else ""
        return f"{text[:start]}{blank}{count}{text[end:]}"
    key, value = next((key, value) for key, value in stage.value if key.value == "train")
    end = _end(value)
    if stage.flow_style:
        return f"{text[:end]}, parameters: {count}{text[end:]}"
    line_end = text.find("\n", end)
    newline = "\r\n" if text[max(line_end - 1, 0) : line_end] == "\r" else "\n"
    line = f"{' ' * key.start_mark.column}parameters: {count}"
    if line_end < 0:
        return f"{text}{newline}{line}{newline}"
    return f"{text[: line_end + 1]}{line}{newline}{text[line_end + 1 :]}"


def _end(node: Any) -> int:
    """Where the last character of a value stands; a block's own end mark lies behind the comments that follow it."""
    if isinstance(node.value, str) or node.flow_style:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


def _value(node: Any, key: str) -> Any:
    """The value of a key of a mapping node; None without it."""
    pairs = node.value if node is not None and isinstance(node.value, list) else []
    return next((pair[1] for pair in pairs if isinstance(pair, tuple) and pair[0].value == key), None)
