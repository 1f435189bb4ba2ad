"""`omniloom predict`: answer a file of records into another, in batches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from omniloom.cli.doors import PROBLEMS
from omniloom.cli.progress import View
from omniloom.cli.terminal import find_run, quiet_libraries, say, warn, working

__all__ = ["predict"]


def predict(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(help="A run folder, or its name in runs/.")],
    source: Annotated[Path, typer.Argument(metavar="IN", help="JSON lines: {id, messages}, as for training.")],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="JSON lines: {id, text, finish, items} or {id, error}.")
    ],
    batch: Annotated[int, typer.Option("--batch", min=1, help="Records between two writes, answered together.")] = 64,
    max_new: Annotated[int, typer.Option("--max-new", min=1, help="Tokens an answer may have.")] = 64,
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Run the run's own part files.")] = False,
) -> None:
    """Answer every record of IN into OUT. What OUT holds already is kept; the same call goes on where one stopped.

    Exits with 1 if a record could not be answered; OUT then says why.
    """
    import json

    from omniloom.api import load
    from omniloom.errors import ConfigError, DataError

    folder = find_run(run)
    if not source.is_file():
        raise DataError("there is no such file to answer.", file=str(source))
    if target.exists() and target.samefile(source):
        raise ConfigError(f"IN and OUT are the same file, {source}. Name another OUT.")
    if not target.parent.is_dir():
        raise ConfigError(f"there is no folder {target.parent} for OUT. Make it first.")
    quiet_libraries()
    with working("loading the run"):
        omni = load(folder, allow_code=allow_code)
    ctx.meta["omniloom.resume"] = "The same command goes on after the records that are answered."
    with View() as view:
        answered = omni.predict(
            source,
            target,
            max_new=max_new,
            batch=batch,
            progress=lambda done, total: view.moved("records", done, total),
        )
    records = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    say(f"{answered} of {len(records)} records answered in {target}")
    wrong = [record for record in records if "error" in record]
    for record in wrong[:5]:
        warn(f"{record['id']}: {record['error']}")
    if wrong:
        warn(f"{len(wrong)} could not be answered; their lines in {target} say why.")
        raise typer.Exit(PROBLEMS)
