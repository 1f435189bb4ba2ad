"""The command line. Help loads nothing heavy: what a command needs is imported when it runs.

omniloom train run.yaml;  omniloom chat runs/mine --image cat.png -p "What is this?"
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from omniloom import __version__
from omniloom.cli import (
    adding,
    chatting,
    checking,
    converting,
    evaluating,
    importing,
    listing,
    predicting,
    scaffolding,
    showing,
    starting,
    training,
)
from omniloom.cli.chat_arguments import ChatCommand
from omniloom.cli.doors import Doors
from omniloom.cli.terminal import say

__all__ = ["app", "main"]

app = typer.Typer(
    name="omniloom",
    cls=Doors,
    help="Weave modalities into a language model: compose, train, evaluate, report and chat.",
    no_args_is_help=True,
    add_completion=False,  # typer would load pydantic to read its options, for every help
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        say(f"omniloom {__version__}")
        raise typer.Exit


@app.callback()
def omniloom(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Weave modalities into a language model: compose, train, evaluate, report and chat."""


app.command("quickstart")(starting.quickstart)
app.command("list")(listing.list_parts)
app.command("show")(showing.show)
app.add_typer(scaffolding.app, name="new")
app.command("check")(checking.check)
app.command("train")(training.train)
app.command("add-modality")(adding.add_modality)
app.command("eval")(evaluating.evaluate)
app.command("report")(evaluating.report)
app.command("chat", cls=ChatCommand)(chatting.chat)
app.command("predict")(predicting.predict)
app.command("convert")(converting.convert)
app.command("import")(importing.import_model)


def main() -> None:
    """Entry point of the `omniloom` command."""
    _be_a_good_neighbour()
    app(prog_name="omniloom")


def _be_a_good_neighbour() -> None:
    """On a machine that does something else too, let torch's threads sleep while they wait.

    Spinning threads that share a core made a step 3 to 20 times slower; sleeping ones cost 10 to 18 % on a quiet
    machine. Must be said before torch is loaded.
    """
    is_busy = hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.5
    if is_busy:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
