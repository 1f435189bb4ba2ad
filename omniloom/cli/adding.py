"""`omniloom add-modality`: one more modality onto a run, and what that did to everything the run could do before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omniloom.cli.evaluating import say_report
from omniloom.cli.progress import View
from omniloom.cli.terminal import find_run, quiet_libraries, say

if TYPE_CHECKING:
    from omniloom.train.adding import Added

__all__ = ["add_modality"]


def add_modality(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(help="A run folder, or its name in runs/.")],
    file: Annotated[Path, typer.Argument(help="A modality file (.py), or a YAML file with modalities, data, stages.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the new run; RUN-NAME by default.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Of the modality; the file's name by default.")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Of a modality file: a folder of classes or JSONL.")
    ] = None,
    test: Annotated[Path | None, typer.Option("--test", help="Held-out data that it is scored on.")] = None,
    prompt: Annotated[str, typer.Option("--prompt", help="Asked of items in a folder of classes.")] = "What is this?",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of a modality file's stage.")] = 300,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="a.b=value over the new run file; repeatable.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove what the folder holds and start anew.")] = False,
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Run the old run's own part files.")] = False,
) -> None:
    """Train one more modality onto a run; measure it, and every old score again. The old run stays as it is."""
    from omniloom.train.adding import add_modality as add

    folder = find_run(run)
    ctx.meta["omniloom.resume"] = "Nothing is lost: the same command goes on from the last checkpoint."
    quiet_libraries()
    with View() as view:
        added = add(
            folder,
            file,
            out=out,
            name=name,
            data=data,
            test=test,
            prompt=prompt,
            steps=steps,
            sets=sets or [],
            fresh=fresh,
            allow_code=allow_code,
            tell=view.tell,
        )
    _say(added)
    # The code that was just trained is the user's own: they named the file.
    say_report(added.run, allow_code=True)


def _say(added: Added) -> None:
    from omniloom.eval.tables import band, comparison_table, percent

    trained = ", ".join(f"{stage} {count:,}" for stage, count in added.parameters.items())
    say(f"\nadded:   {', '.join(added.modalities)} in {added.minutes:.1f} minutes; trained parameters: {trained}")
    for task, result in added.new.items():
        chance = f"chance {percent(result.chance.value)}"
        say(f"new:     {task} {percent(result.score)} ({band(result.interval95)}, n {result.n}; {chance})")
    if added.old:
        say("\n" + comparison_table(added.old, "before", "after"))
    same = [name for name, is_same in added.unchanged.items() if is_same]
    other = [name for name, is_same in added.unchanged.items() if not is_same]
    if same:
        say(f"bit-identical to before: {', '.join(same)}")
    if other:
        say(f"computed otherwise than before: {', '.join(other)}")
    say(f"components with other weights: {', '.join(added.changed) or 'none'}")
