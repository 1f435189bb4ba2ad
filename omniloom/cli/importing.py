"""`omniloom import`: a published multimodal model as a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from omniloom.cli.terminal import RUNS, columns, quiet_libraries, say, working

__all__ = ["import_model"]

_DTYPES = ("float32", "bfloat16", "float16", "float64", "auto")


def import_model(
    model: Annotated[str, typer.Argument(help="Hub id or folder of a whole model: LLaVA, Qwen2.5-VL, BLIP-2 ...")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The new run folder; runs/NAME by default, NAME the model's own.")
    ] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit on the hub.")] = None,
    dtype: Annotated[
        str, typer.Option("--dtype", help="Of the language model: float32, bfloat16, float16, or auto.")
    ] = "float32",
) -> None:
    """Take over a published multimodal model: a run folder that chats, evaluates and trains as any other.

    Weights of its language model and towers stay where they are and are named by the run; projectors become the run's
    own. A single projector is taken by `init:` in a run file, without this command.
    """
    from omniloom.errors import ConfigError

    if dtype not in _DTYPES:
        raise ConfigError(f"--dtype is {dtype!r}; expected one of {', '.join(_DTYPES)}.")
    folder = out or RUNS / Path(model).name
    quiet_libraries()
    from omniloom.checkpoint import adopt
    from omniloom.config import load_run

    with working("taking the model over"):
        adopt(model, folder, revision=revision, dtype=dtype)
    config = load_run(folder / "run.yaml").config
    say(f"{folder} is a run of {model}:")
    rows = [
        (name, row.payload, "taken apart into " + ", ".join(row.split) if row.split else _parts_of(row))
        for name, row in config.modalities.items()
    ]
    columns(("modality", "reads", "through"), rows)
    first = next(iter(config.modalities))
    say(f'  omniloom chat {folder} --{first} FILE -p "What is this?"')
    say(f"  omniloom add-modality {folder} FILE.py    trains one more modality onto it")


def _parts_of(row: object) -> str:
    inside = row.in_  # type: ignore[attr-defined]
    specs = [inside.processor, inside.encoder, *(spec for _, spec in inside.links)]
    return ", ".join(spec if isinstance(spec, str) else str(spec.get("type") or spec["component"]) for spec in specs)
