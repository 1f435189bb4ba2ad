"""`omniloom chat`: one question with items of any modality, or a conversation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from omniloom.cli.chat_arguments import output_named, parts_of
from omniloom.cli.terminal import find_run, quiet_libraries, working

__all__ = ["chat"]


def chat(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(help="A run folder, or its name in runs/.")],
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", metavar="TEXT", help="Text of the question; without it a conversation opens."),
    ] = None,
    item: Annotated[
        list[str] | None,
        typer.Option(
            "--item",
            metavar="MODALITY=PATH",
            help="A file for an input of the run. Every input also is a flag of its own: --MODALITY PATH, such as "
            "--image cat.png; so is a kind of media that one input alone reads. Prompts and items keep their order.",
        ),
    ] = None,
    out: Annotated[
        list[str] | None,
        typer.Option("--out", metavar="MODALITY", help="An output the answer may hold beside text; repeatable."),
    ] = None,
    max_new: Annotated[int, typer.Option("--max-new", min=1, help="Tokens the answer may have.")] = 64,
    temperature: Annotated[float, typer.Option("--temperature", min=0, help="0 takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option("--top-p", help="Draw from the likeliest tokens of this share.")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the draws.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per answer.")] = False,
    save_to: Annotated[
        Path | None,
        typer.Option(
            "--save-to", metavar="DIR", help="Where generated items go: ./answers; with --json into the object."
        ),
    ] = None,
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Run the run's own part files.")] = False,
) -> None:
    """Ask a trained run, or converse with it.

    omniloom chat runs/mine --image cat.png --speech hello.wav -p "What do you see?" --json
    """
    from omniloom.checkpoint import read_manifest
    from omniloom.config import load_run

    folder = find_run(run)
    read_manifest(folder)
    # Wrong flags are told before the model is loaded.
    config = load_run(folder).config
    parts = parts_of(ctx.meta["omniloom.parts"], config)
    outputs = [output_named(name, config) for name in out] if out else None
    from omniloom.api import load
    from omniloom.cli.answers import Desk
    from omniloom.cli.conversing import Session

    quiet_libraries()
    with working("loading the run"):
        omni = load(folder, allow_code=allow_code)
    options = {"outputs": outputs, "max_new": max_new, "temperature": temperature, "top_p": top_p, "seed": seed}
    desk = Desk(omni, options, as_json=as_json, save_to=save_to)
    if any(isinstance(part, str) for part in parts):
        return desk.answer(omni.conversation(), parts)
    ctx.meta["omniloom.resume"] = "Good bye."
    Session(desk, parts, is_terminal=sys.stdin.isatty()).run()
