"""`omniloom train`: train a run, evaluate it, write its report, and say how to talk to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omniloom.cli.evaluating import evaluate_run, say_report
from omniloom.cli.progress import View
from omniloom.cli.terminal import RUNS, quiet_libraries, say

if TYPE_CHECKING:
    from omniloom.config import LoadedRun, RunConfig

__all__ = ["say_next", "train"]


def train(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A run file, or a recipe's name.")],
    out: Annotated[Path | None, typer.Option("--out", help="The run's folder; runs/NAME by default.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="a.b=value over the run file; repeatable.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove what the folder holds and start anew.")] = False,
    overfit: Annotated[
        bool, typer.Option("--overfit", help="Train every stage on its first batch only, into runs/NAME-overfit.")
    ] = False,
    no_eval: Annotated[bool, typer.Option("--no-eval", help="Do not evaluate afterwards.")] = False,
) -> None:
    """Train a run; the same call goes on where an interrupted one stopped. Then evaluate it and write its report."""
    from omniloom.config import load_run

    loaded = load_run(file, sets=sets or [])
    if overfit:
        stages = range(len(loaded.config.stages))
        loaded = load_run(file, sets=[*(sets or []), *(f"stages.{index}.overfit=true" for index in stages)])
    folder = out or RUNS / (loaded.config.name + ("-overfit" if overfit else ""))
    ctx.meta["omniloom.resume"] = (
        "Nothing is lost: the same command goes on from the last checkpoint (without --fresh)."
    )
    _train(loaded, folder, fresh)
    if loaded.config.evaluation and not no_eval and not overfit:
        ctx.meta["omniloom.resume"] = f"The run is trained and saved. Evaluate it with: omniloom eval {folder}"
        if not _is_evaluated(folder):
            # The code that was just trained is the user's own: they named it in their run file.
            evaluate_run(folder, allow_code=True)
    if no_eval or overfit:
        say(f"\ntrained into {folder}")
    else:
        say_report(folder, allow_code=True)
    say_next(folder, loaded.config)


def _train(loaded: LoadedRun, folder: Path, fresh: bool) -> None:
    from omniloom.train import train as train_run

    quiet_libraries()
    with View() as view:
        train_run(loaded, out=folder, fresh=fresh, tell=view.tell)


def _is_evaluated(folder: Path) -> bool:
    """Whether the folder has results of this very run."""
    from omniloom.config import digest, load_run
    from omniloom.eval import read_results

    results = folder / "eval" / "results.json"
    return results.is_file() and read_results(results).run_digest == digest(load_run(folder).config)


def say_next(folder: Path, config: RunConfig) -> None:
    """How to talk to the run."""
    inputs = [name for name, row in config.modalities.items() if row.in_ is not None]
    say(f"chat:    omniloom chat {folder}")
    if inputs:
        say(f'         omniloom chat {folder} --{inputs[0]} FILE -p "What is this?" --json')
    say(f"predict: omniloom predict {folder} in.jsonl out.jsonl")
