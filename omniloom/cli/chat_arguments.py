"""The arguments of `omniloom chat`: a flag for every input of the run, in any number and in the order they are written.

    --image a.png -p "and what is that?" --image b.png --audio c.wav -p "Answer in one word."

The flags of a run are known only when its file has been read, so they are collected first and resolved afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from omniloom.config import RunConfig

__all__ = ["ChatCommand", "Given", "input_named", "output_named", "parts_of"]

_PROMPT = ("-p", "--prompt")
_ITEM = "--item"


class Given(NamedTuple):
    """Something given to the prompt. `flag`: as it was written; `name`: the modality or kind, None for text."""

    flag: str
    name: str | None
    value: str


class ChatCommand(TyperCommand):
    """A command that keeps prompts and items in their order, under `omniloom.parts` of the context's `meta`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take prompts and items out; the rest are ordinary options."""
        takes_value = {
            name: not getattr(param, "is_flag", False)
            for param in self.get_params(ctx)
            for name in (*param.opts, *param.secondary_opts)
            if name.startswith("-")
        }
        rest, ctx.meta["omniloom.parts"] = _sorted(args, takes_value)
        result: list[str] = super().parse_args(ctx, rest)
        return result


def _sorted(args: Sequence[str], takes_value: Mapping[str, bool]) -> tuple[list[str], list[Given]]:
    """Ordinary arguments, and what is given to the prompt in order."""
    rest: list[str] = []
    parts: list[Given] = []
    waiting = list(args)
    while waiting:
        arg = waiting.pop(0)
        if arg == "--":
            rest += [arg, *waiting]
            break
        flag, equals, value = arg.partition("=") if arg.startswith("--") else (arg, "", "")
        if arg.startswith("-p") and not arg.startswith("--"):
            flag, equals, value = "-p", arg[2:], arg[2:]
        if flag in _PROMPT:
            parts.append(Given(flag, None, value if equals else _next(flag, "TEXT", waiting)))
        elif flag == _ITEM:
            written = value if equals else _next(flag, "MODALITY=PATH", waiting)
            name, has_path, path = written.partition("=")
            if not has_path or not name or not path:
                raise typer.BadParameter(f"{_ITEM} takes MODALITY=PATH, got {written!r}.")
            parts.append(Given(f"{_ITEM} {name}", name, path))
        elif arg.startswith("--") and flag not in takes_value:
            parts.append(Given(flag, flag[2:].replace("-", "_"), value if equals else _next(flag, "PATH", waiting)))
        else:
            rest.append(arg)
            if takes_value.get(arg) and waiting:
                rest.append(waiting.pop(0))
    return rest, parts


def _next(flag: str, what: str, waiting: list[str]) -> str:
    if not waiting:
        raise typer.BadParameter(f"{flag} needs {what} after it.")
    return waiting.pop(0)


def parts_of(given: Sequence[Given], config: RunConfig) -> list[Any]:
    """What is given, as parts of a question.

    Raises:
        ConfigError: a flag that is no input of the run, or a file that is not there.
    """
    from omniloom.errors import ConfigError

    parts: list[Any] = []
    for flag, name, value in given:
        if name is None:
            parts.append(value)
            continue
        modality = input_named(name, config, flag)
        if not Path(value).is_file():
            raise ConfigError(f"{flag}: there is no file {value!r}.")
        parts.append({"type": modality, "path": value})
    return parts


def input_named(name: str, config: RunConfig, flag: str) -> str:
    """The input modality of this name, or the only one that reads payloads of this kind.

    Raises:
        ConfigError: none, or several read that kind.
    """
    inputs = {key: row.payload for key, row in config.modalities.items() if row.in_ is not None}
    return _named(name, inputs, flag, "input")


def output_named(name: str, config: RunConfig) -> str:
    """The output modality of this name, or the only one that makes payloads of this kind.

    Raises:
        ConfigError: none, or several make that kind.
    """
    outputs = {key: row.payload for key, row in config.modalities.items() if row.out is not None}
    return _named(name.replace("-", "_"), outputs, f"--out {name}", "output")


def _named(name: str, kinds: Mapping[str, str], flag: str, what: str) -> str:
    from omniloom.errors import ConfigError

    if name in kinds:
        return name
    fitting = [key for key, kind in kinds.items() if kind == name]
    if len(fitting) == 1:
        return fitting[0]
    known = ", ".join(f"{key} ({kind})" if key != kind else key for key, kind in kinds.items()) or "none"
    if fitting:
        choices = " or ".join(flag.replace(name, key) for key in fitting)
        raise ConfigError(f"{flag} is ambiguous: {' and '.join(fitting)} both are of that kind. Write {choices}.")
    raise ConfigError(f"{flag} is no option and no {what} of this run. Its {what}s: {known}.{_near(name, kinds)}")


def _near(name: str, kinds: Mapping[str, str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, list(kinds), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""
