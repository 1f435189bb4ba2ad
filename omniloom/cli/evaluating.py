"""`omniloom eval` and `omniloom report`: measure a trained run, and show it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from omniloom.cli.progress import View
from omniloom.cli.terminal import find_run, quiet_libraries, say, working

__all__ = ["evaluate", "evaluate_run", "report", "say_report"]


def evaluate(
    run: Annotated[str, typer.Argument(help="A run folder, or its name in runs/.")],
    tasks: Annotated[
        list[str] | None, typer.Option("--task", help="One task of the run; repeatable. All by default.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Prompts that run together.")] = 32,
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Run the run's own part files.")] = False,
) -> None:
    """Evaluate a trained run on the held-out data it declares, into RUN/eval/results.json, and write its report."""
    folder = find_run(run)
    evaluate_run(folder, tasks=tasks, batch=batch, allow_code=allow_code)
    if not tasks:
        say_report(folder, allow_code=allow_code)


def report(
    run: Annotated[str, typer.Argument(help="A run folder, or its name in runs/.")],
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Run the run's own part files.")] = False,
) -> None:
    """Write the report of an evaluated run again: one HTML file that opens offline, and the model card."""
    say_report(find_run(run), allow_code=allow_code)


def evaluate_run(folder: Path, *, tasks: list[str] | None = None, batch: int = 32, allow_code: bool = False) -> None:
    """Evaluate with progress, then print the table of results."""
    from omniloom.eval import table
    from omniloom.eval.run import evaluate as evaluate_folder

    quiet_libraries()
    with View() as view:
        results = evaluate_folder(folder, tasks=tasks or (), batch=batch, allow_code=allow_code, tell=view.tell)
    say("\n" + table(results))


def say_report(folder: Path, *, allow_code: bool = False) -> None:
    """Write the report and say where everything is."""
    from omniloom.eval.from_run import write_run_report

    quiet_libraries()
    with working("writing the report"):
        path = write_run_report(folder, allow_code=allow_code)
    say(f"run:     {folder}")
    say(f"report:  {path}")
