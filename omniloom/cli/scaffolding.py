"""`omniloom new`: a modality or a run file to start from, which works as it is."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from omniloom.cli.doors import Group
from omniloom.cli.terminal import say

__all__ = ["PayloadKind", "app", "new_modality", "new_run"]

app = typer.Typer(cls=Group, help="Write a modality file or a run file to start from.")


class PayloadKind(StrEnum):
    """The kinds of media that a skeleton can read."""

    SERIES = "series"
    IMAGE = "image"
    AUDIO = "audio"
    POINTS = "points"
    VIDEO = "video"
    MAP = "map"


@app.command("modality")
def new_modality(
    name: Annotated[str, typer.Argument(help="Its name in run files and data: lower case, digits, `_`.")],
    payload: Annotated[PayloadKind, typer.Option("--payload", help="What its files hold.")] = PayloadKind.SERIES,
    out: Annotated[Path | None, typer.Option("--out", help="The file to write; NAME.py by default.")] = None,
) -> None:
    """Write a new modality: one file with a processor and an encoder that work as they are."""
    from omniloom.errors import ConfigError

    if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", name) or name == "text":
        raise ConfigError(
            f"a modality cannot be named {name[:60]!r}: a lower-case letter, then letters, digits or `_`, at most 32, "
            "and not `text`."
        )
    path = out or Path(f"{name}.py")
    if path.suffix != ".py":
        raise ConfigError(f"a modality file is a Python file; --out got {str(path)!r}. Name it NAME.py.")
    words = name.replace("_", " ").split() or [name]
    class_name = "".join(word.capitalize() for word in words)
    title = " ".join(words).capitalize()
    _write(path, f"{payload.value}.py", name=name, payload=payload.value, class_name=class_name, title=title)
    say(f"{path} is a modality that works as it is. Make it yours, and then:")
    say(f"  python {path}    holds it to every law of a modality")
    say(f"  {name}: {{use: ./{path.name}}}    stands under `modalities:` of a run file beside it")
    say(f'  {{"type": "{name}", "path": "FILE"}}    stands in the content of a message of your data')


@app.command("run")
def new_run(
    name: Annotated[str, typer.Argument(help="The run's name; its folder will be runs/NAME.")],
    out: Annotated[Path | None, typer.Option("--out", help="The file to write; NAME.yaml by default.")] = None,
) -> None:
    """Write a commented run file for your own data."""
    from omniloom.errors import ConfigError

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ConfigError(
            f"a run cannot be named {name[:60]!r}: a letter or digit, then letters, digits, `.`, `_`, `-`, at most 64."
        )
    path = out or Path(f"{name}.yaml")
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"a run file is a YAML file; --out got {str(path)!r}. Name it NAME.yaml.")
    _write(path, "run.yaml", name=name)
    say(f"{path} is a run file with comments. Point `data:` at your files, and then:")
    say(f"  omniloom check {path}\n  omniloom train {path}")


def _write(path: Path, template: str, **values: str) -> None:
    """Fill a template into a new file.

    Raises:
        ConfigError: there is such a file already, or no such folder.
    """
    from importlib.resources import files

    from omniloom.errors import ConfigError

    source = files("omniloom.cli") / "templates" / f"{template}.tmpl"
    text = Template(source.read_text(encoding="utf-8")).substitute(file=path.name, **values)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{path} is there already; nothing was written. Name another file with --out.") from None
    except FileNotFoundError:
        raise ConfigError(f"there is no folder {path.parent}. Make it first.") from None
