"""What the commands share of the terminal: consoles that print text as it is, tables, and quiet libraries."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["RUNS", "columns", "console", "duration", "find_run", "quiet_libraries", "say", "warn", "working"]

RUNS = Path("runs")
_NO_LIMIT = 100_000


def console(*, is_error: bool = False) -> Console:
    """A console that takes no text for markup; what is not a terminal is never wrapped."""
    from rich.console import Console

    stream = sys.stderr if is_error else sys.stdout
    width = None if stream.isatty() else _NO_LIMIT
    return Console(stderr=is_error, markup=False, highlight=False, emoji=False, width=width)


def say(text: object = "") -> None:
    """A line on standard output, exactly as it is."""
    typer.echo(str(text))


def warn(text: object) -> None:
    """A line on standard error, exactly as it is."""
    typer.echo(str(text), err=True)


def columns(header: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[int] = ()) -> None:
    """Aligned columns; on a terminal long cells are wrapped, elsewhere every row is one line. `right`: columns of
    numbers."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    out = console()
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as capture:
        out.print(table)
    for line in capture.get().splitlines():
        say(line.rstrip())


def working(what: str) -> AbstractContextManager[Any]:
    """A spinner on a terminal while something takes its time; nothing elsewhere."""
    return console(is_error=True).status(what)


def quiet_libraries() -> None:
    """Leave the terminal to this program: transformers shows no bars of its own and speaks only of errors."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def duration(seconds: float) -> str:
    """75.2 -> "1:15"; hours in front where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def find_run(name: str) -> Path:
    """The folder of a run: a path, or the name of a folder in `runs`.

    Raises:
        CheckpointError: there is no such folder.
    """
    from omniloom.errors import CheckpointError, did_you_mean

    for folder in (Path(name), RUNS / name):
        if folder.is_dir():
            return folder
    known = [path.name for path in RUNS.iterdir() if path.is_dir()] if RUNS.is_dir() else []
    message = f"there is no run folder {name!r}, neither here nor in {RUNS}/."
    raise CheckpointError(message + (did_you_mean(name, known) if known else " Train one: `omniloom train FILE`."))
