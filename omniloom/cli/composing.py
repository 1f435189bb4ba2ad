"""Run files opened for looking at: the file itself, and its model without a single pretrained weight."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omniloom.cli.terminal import RUNS, quiet_libraries

if TYPE_CHECKING:
    from omniloom.config import LoadedRun
    from omniloom.model import OmniModel
    from omniloom.sequence import Sample

__all__ = ["open_run", "refuse_code", "shell_model", "with_stand_in_codes"]


def open_run(name: str, *, sets: list[str] | None = None, allow_code: bool = False) -> LoadedRun:
    """The run of a file, a folder, a recipe's name, or the name of a folder in `runs`.

    Raises:
        ConfigError: as `load_run`. CheckpointError: a trained run with code of its own, without `allow_code`.
    """
    from omniloom.config import load_run, recipes

    path = Path(name)
    if not path.exists() and (RUNS / name).is_dir() and name not in recipes():
        path = RUNS / name
    if path.is_dir():
        refuse_code(path, allow_code)
    return load_run(path if path.exists() else name, sets=sets or [])


def refuse_code(folder: Path, allow_code: bool) -> None:
    """Refuse to import the part files of a trained run, which may be somebody else's.

    Raises:
        CheckpointError: there are some, and `allow_code` is False.
    """
    from omniloom.errors import CheckpointError

    code = sorted(path.name for path in (folder / "parts").glob("*.py"))
    if code and not allow_code:
        raise CheckpointError(
            f"the run in {folder} brings Python code of its own ({', '.join(code)}), which this would execute. "
            "Read it, then pass --allow-code."
        )


def shell_model(run: LoadedRun) -> tuple[OmniModel, str]:
    """The model of a run without its weights, and where it was built: "meta", or "cpu" with random weights.

    The meta device holds shapes only, so any size fits. A part whose constructor computes with its own weights
    cannot be built there.
    """
    import torch

    from omniloom.model import compose

    quiet_libraries()
    try:
        with torch.device("meta"):
            return compose(run.config, base=run.base_folder, weights=False), "meta"
    except RuntimeError as error:
        if "meta" not in str(error):
            raise
        return compose(run.config, base=run.base_folder, weights=False), "cpu"


def with_stand_in_codes(model: Any, sample: Sample) -> Sample:
    """The sample with zeros for the codes of every output item: as many as its codec would give, which is all that
    counting slots needs.

    Raises:
        PlanError: an item of a codec whose codes have no fixed shape.
    """
    from dataclasses import replace

    import torch

    from omniloom.errors import PlanError
    from omniloom.sequence import Codes, Item, Turn

    def change(turn: Turn, item: Item) -> Item:
        row = model.rows.get(item.modality)
        is_out = item.is_output_of(turn)
        if not is_out or row is None or row.output is None:
            return item
        codec = row.output.codec
        shape = codec.code_shape()
        if shape is None:
            raise PlanError(
                f"the codec of {item.modality!r} has no fixed code shape; its slots are known after training."
            )
        books = tuple(torch.zeros(shape.len, dtype=torch.long, device="cpu") for _ in codec.sizes)
        return replace(item, payload=Codes(books, shape), role="out")

    return sample.map_items(change)
