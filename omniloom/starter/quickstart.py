"""The quickstart: packaged models and data, a recipe, training, evaluation and a report, from one call.

What a system cannot provide is left out by name, and said: a modality whose data come from a package that is not to
be had is dropped from the recipe, and the run file that remains is written beside the run, to be read and changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from omniloom.errors import MissingAssetError

__all__ = ["STAND_INS", "available_recipe", "run"]

Tell = Callable[[Mapping[str, Any]], None]

# A data set that needs a Debian package -> one from the Python registry that serves the same modality.
STAND_INS = {"things-image": "digits-image"}
_SCHEME = "starter:"


def run(
    out: str | Path = "runs/quickstart",
    *,
    recipe: str = "quickstart",
    minutes: float | None = None,
    threads: int | None = None,
    tell: Tell | None = None,
) -> Path:
    """Fetch, train, evaluate and report; returns the run folder. A run that was interrupted goes on.

    `recipe`: the recipe to take. `minutes`: shares this much training time among the stages of the whole model, in the
    recipe's own proportions; None takes its steps. `threads`: of torch; None takes every core. `tell` receives the
    events of training and evaluation, and {"event": "fetch", "name", "stage"} while packages come.

    Raises:
        MissingAssetError: the language model, or every single modality, cannot be had; with the reasons.
    """
    # What a run needs is loaded here, so that naming this module costs nothing.
    from omniloom.checkpoint import load_model
    from omniloom.data.engine import Engine
    from omniloom.eval.from_run import write_run_report
    from omniloom.eval.results import write_results
    from omniloom.eval.run import evaluate_model
    from omniloom.files import write_whole
    from omniloom.train import train

    tell = tell or (lambda event: None)
    folder = Path(out)
    started = time.perf_counter()
    values, notes = available_recipe(recipe)
    for note in notes:
        tell({"event": "note", "text": note})
    _fetch(values, tell)
    if minutes is not None:
        _share_minutes(values, minutes)
    if threads is not None:
        values["threads"] = threads
    run_file = folder.parent / f"{folder.name}.yaml"
    write_whole(run_file, yaml.safe_dump(values, sort_keys=False))
    seconds = {"fetch and convert": time.perf_counter() - started}
    train(run_file, out=folder, tell=tell)
    model, config = load_model(folder)
    results = evaluate_model(Engine(model, batch=32), config, folder.resolve(), tell=tell)
    write_results(folder / "eval" / "results.json", results)
    write_run_report(folder, phases_s=seconds, notes=notes)
    tell({"event": "phases", "fetch_s": seconds["fetch and convert"], "total_s": time.perf_counter() - started})
    return folder


def available_recipe(recipe: str) -> tuple[dict[str, Any], list[str]]:
    """The recipe without what this system cannot provide, and a sentence for each thing left out or replaced.

    Raises:
        MissingAssetError: the language model or every modality's data cannot be had.
    """
    from omniloom.config import load_run
    from omniloom.starter import absent_reason

    values: dict[str, Any] = load_run(recipe).tree.plain()
    model = str(values["backbone"]["id"]).removeprefix(_SCHEME)
    if reason := absent_reason(model):
        raise MissingAssetError(f"the quickstart's language model {model!r} cannot be had: {reason}.")
    notes: dict[str, str] = {}
    dropped: set[str] = set()
    for name, source in values["data"].items():
        data = _packaged(source)
        if data is None or not (reason := absent_reason(data)):
            continue
        stand_in = STAND_INS.get(data)
        if stand_in is not None and not absent_reason(stand_in):
            source["path"] = _SCHEME + stand_in
            notes[data] = f"{stand_in} stands in for {data}: {reason}"
        else:
            dropped.add(name)
            notes[data] = f"{data} is left out: {reason}"
    _drop(values, dropped)
    if not any("in" in row for row in values["modalities"].values()):
        raise MissingAssetError("no data of the quickstart can be had: " + "; ".join(notes.values()) + ".")
    return values, list(notes.values())


def _packaged(source: Mapping[str, Any]) -> str | None:
    path = str(source.get("path", ""))
    return path.removeprefix(_SCHEME) if path.startswith(_SCHEME) else None


def _drop(values: dict[str, Any], sources: set[str]) -> None:
    """Remove data sources, and whatever is left with nothing to train on or to be asked about."""
    values["data"] = {name: source for name, source in values["data"].items() if name not in sources}
    values["evaluation"] = {
        name: task
        for name, task in values["evaluation"].items()
        if task["data"] in values["data"] and task.get("judge", task["data"]) in values["data"]
    }
    for stage in values["stages"]:
        stage["data"] = {name: weight for name, weight in stage["data"].items() if name in values["data"]}
    values["stages"] = [stage for stage in values["stages"] if stage["data"]]
    # Sources are named MODALITY_train and MODALITY_test; a modality with neither has nothing to learn from.
    gone = {name.rpartition("_")[0] for name in sources}
    values["modalities"] = {name: row for name, row in values["modalities"].items() if name not in gone}
    if not any("codec" in row.get("out", {}) for row in values["modalities"].values()):
        # Without a learned output there are no rows of the vocabulary to train.
        for stage in values["stages"]:
            stage["train"] = [glob for glob in stage["train"] if glob != "vocab"]
            if isinstance(stage.get("lr"), dict):
                stage["lr"].pop("vocab", None)


def _fetch(values: Mapping[str, Any], tell: Tell) -> None:
    """Bring every packaged model and data set that the run names, telling what is under way."""
    from omniloom.starter import dataset, resolve

    def progress(name: str, stage: str) -> None:
        tell({"event": "fetch", "name": name, "stage": stage})

    resolve(str(values["backbone"]["id"]).removeprefix(_SCHEME), progress=progress)
    for name in sorted({data for source in values["data"].values() if (data := _packaged(source)) is not None}):
        dataset(name, progress=progress)


def _share_minutes(values: dict[str, Any], minutes: float) -> None:
    stages = [stage for stage in values["stages"] if stage.get("of", "model") == "model"]
    total = sum(stage["steps"] for stage in stages)
    for stage in stages:
        stage["minutes"] = round(minutes * stage.pop("steps") / total, 3)
