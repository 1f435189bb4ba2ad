"""`omniloom check`: everything that is wrong with a run file and its data, before any training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omniloom.cli.composing import open_run, refuse_code, shell_model, with_stand_in_codes
from omniloom.cli.doors import PROBLEMS
from omniloom.cli.terminal import columns, say, working

if TYPE_CHECKING:
    from omniloom.config import LoadedRun, Problem
    from omniloom.data import SourceReport
    from omniloom.model import OmniModel
    from omniloom.sequence import Plan

__all__ = ["check"]

# Samples of a source that are planned to count slots, unless the check is deep.
_PLANNED = 100
# Problems of one source that are printed, unless the check is deep.
_SHOWN = 20


def check(
    run: Annotated[str, typer.Argument(help="A run file, a run folder, or a recipe's name.")],
    sets: Annotated[list[str] | None, typer.Option("--set", help="a.b=value over the run file; repeatable.")] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every medium, plan every sample, print all.")] = False,
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Import the run folder's own part files.")] = False,
) -> None:
    """Check a run file, its parts and its data; every problem with its file and line. Exits with 1 if there are any."""
    from pathlib import Path

    from omniloom.config import Problem, check_parts, problems
    from omniloom.data import check_data

    if Path(run).is_dir():
        refuse_code(Path(run), allow_code)
    found = problems(run, sets or [])
    if found:
        _finish(found)
    loaded = open_run(run, sets=sets, allow_code=allow_code)
    with working("looking at parts and data"):
        found = check_parts(loaded)
        reports = check_data(loaded, is_deep=deep)
    plans: dict[str, dict[str, Any]] = {}
    if not found:
        with working("composing the model without its weights"):
            model, wrong = _model_of(loaded)
            found += wrong
        if model is not None:
            found += list(_stage_problems(loaded, model))
            found += list(_init_problems(loaded, model))
            with working("planning samples"):
                plans = {
                    name: _planned(loaded, model, name, deep) for name, report in reports.items() if report.samples
                }
    _summary(reports, plans)
    for name, report in reports.items():
        shown = report.problems if deep else report.problems[:_SHOWN]
        found += shown
        if len(report.problems) > len(shown):
            rest = len(report.problems) - len(shown)
            found.append(
                _problem(loaded, ("data", name), f"data source {name!r}: {rest} more problems (--deep prints all).")
            )
        found += [_problem(loaded, ("data", name), message) for message in plans.get(name, {}).get("failed", [])]
        known = {(problem.file, problem.line) for problem in report.problems}
        refused = [one for one in plans.get(name, {}).get("refused", []) if one[0] not in known]
        found += [Problem(place[0], place[1], message) for place, message in refused[: None if deep else _SHOWN]]
    _finish(found)


def _finish(found: list[Problem]) -> None:
    for problem in found:
        say(problem)
    say(f"{len(found)} problem{'s' * (len(found) != 1)} found" if found else "no problems found")
    raise typer.Exit(PROBLEMS if found else 0)


def _problem(loaded: LoadedRun, path: tuple[str | int, ...], message: str) -> Problem:
    from omniloom.config import Problem

    return Problem.of(loaded.error(path, message))


def _model_of(loaded: LoadedRun) -> tuple[OmniModel | None, list[Problem]]:
    """The model without its weights; or why it cannot be composed."""
    from omniloom.errors import ConfigError, MissingAssetError, OmniloomError
    from omniloom.model import require_read

    try:
        model = shell_model(loaded)[0]
        require_read(model)
        return model, []
    except MissingAssetError as error:
        return None, [_problem(loaded, _place_of(loaded, str(error)), str(error))]
    except ConfigError as error:
        return None, [_problem(loaded, _place_of(loaded, error.message), error.message)]
    except OmniloomError as error:
        return None, [_problem(loaded, ("modalities",), str(error))]


def _place_of(loaded: LoadedRun, message: str) -> tuple[str | int, ...]:
    """The part, or else the row, that a message names; the language model where it names none."""
    config = loaded.config
    for name in config.modalities:
        for place in ("encoder", "projector", "codec"):
            if message.startswith(f"{name}/{place}"):
                return ("modalities", name, "out" if place == "codec" else "in", place)
    for table in ("adapters", "components", "fusers"):
        for name in getattr(config, table):
            if message.startswith((f"{name}: ", f"{name}/", f"adapter {name!r}")):
                return (table, name)
    for table in ("modalities", "fusers"):
        for name in getattr(config, table):
            if repr(name) in message or f"{name}/" in message:
                return (table, name)
    name = loaded.config.backbone.id.rpartition("/")[2]
    return ("backbone", "id") if name in message else ("backbone",)


def _stage_problems(loaded: LoadedRun, model: OmniModel) -> Iterator[Problem]:
    """Selectors that find nothing, recorded counts that do not hold, learning rates that leave something out."""
    from omniloom.errors import ConfigError, FreezeError
    from omniloom.train.optimizer import make_optimizer

    for index, stage in enumerate(loaded.config.stages):
        try:
            chosen = model.select(stage.train)
        except FreezeError as error:
            yield _problem(loaded, ("stages", index, "train"), str(error))
            continue
        count = sum(value.numel() for value in chosen.values())
        if stage.parameters is not None and stage.parameters != count:
            message = f"stage {stage.name!r} trains {count:,} parameters, {stage.parameters:,} are recorded."
            hint = "Check `train`, or accept the count: omniloom show FILE --accept."
            yield _problem(loaded, ("stages", index, "parameters"), f"{message} {hint}")
        try:
            make_optimizer(stage, chosen)
        except (ConfigError, FreezeError) as error:
            yield _problem(loaded, ("stages", index, "lr"), getattr(error, "message", str(error)))


def _init_problems(loaded: LoadedRun, model: OmniModel) -> Iterator[Problem]:
    """Globs of `init` that find nothing here, and folders that are no runs."""
    from fnmatch import fnmatchcase

    from omniloom.checkpoint import read_manifest
    from omniloom.checkpoint.initial import is_published
    from omniloom.errors import CheckpointError, did_you_mean

    known = [name for name, values in model.components().items() if values]
    for glob, start in loaded.config.init.items():
        if not any(fnmatchcase(name, glob) for name in known):
            hint = did_you_mean(glob, known)
            yield _problem(loaded, ("init", glob), f"{glob!r} matches no component with weights.{hint}")
        for reference in start.runs.values():
            try:
                if not is_published(reference, loaded.base_folder):
                    read_manifest((loaded.base_folder / reference).resolve())
            except CheckpointError as error:
                yield _problem(loaded, ("init", glob), str(error))


def _planned(loaded: LoadedRun, model: OmniModel, name: str, deep: bool) -> dict[str, Any]:
    """{"n", "longest", "id", "learned", "failed", "refused"} of evenly spaced samples of a source, of all with `deep`.

    `failed`: messages about the source; `refused`: (place in its file, message) of media.
    """
    from omniloom.data import open_source
    from omniloom.data.pipeline import Pipeline
    from omniloom.errors import DataError, MediaError, OmniloomError

    source = open_source(loaded.config.data[name], loaded.base_folder)
    pipeline = Pipeline(model, memory_bytes=0)
    count = len(source) if deep else min(len(source), _PLANNED)
    result: dict[str, Any] = {
        "n": 0,
        "of": len(source),
        "longest": 0,
        "id": "",
        "learned": 0,
        "failed": [],
        "refused": [],
    }
    seen: set[tuple[object, ...]] = set()
    for position in range(count):
        index = position * len(source) // count
        try:
            sample = pipeline.prepare(source[index], root=source.media_root, as_codes=False)
            plan = pipeline.plans([with_stand_in_codes(model, sample)])[0]
            _encode(model, plan, seen)
        except MediaError as error:
            result["refused"].append((source.where(index), str(error)))
            continue
        except DataError:
            continue  # reported with its line by the check of the data
        except OmniloomError as error:
            message = f"data source {name!r}: {error}"
            if message not in result["failed"] and (len(result["failed"]) < _SHOWN or deep):
                result["failed"].append(message)
            continue
        result["n"] += 1
        result["learned"] += plan.supervised
        if plan.shape[1] > result["longest"]:
            result["longest"], result["id"] = plan.shape[1], sample.id
    return result


def _encode(model: OmniModel, plan: Plan, seen: set[tuple[object, ...]]) -> None:
    """Let encoders look at each form of raw tensor that they have not seen; lengths are no forms.

    Raises:
        ShapeError: one does not take it.
    """
    import torch

    from omniloom.model.media import run_encoder

    for item in plan.items:
        raw = item.raw
        form = (item.modality, *(raw.shape[1:] if isinstance(raw, torch.Tensor) else ()))
        if raw is None or form in seen or item.modality not in model.inputs:
            continue
        seen.add(form)
        try:
            run_encoder(item.modality, model.parts[model.inputs[item.modality][0]], [raw.to(model.device)])  # type: ignore[arg-type]
        except (RuntimeError, TypeError, ValueError):
            continue  # not everything runs without numbers; what it takes was checked before that


def _summary(reports: Mapping[str, SourceReport], plans: Mapping[str, Mapping[str, Any]]) -> None:
    rows = []
    for name, report in reports.items():
        plan = plans.get(name)
        media = ", ".join(f"{modality} {count}" for modality, count in report.modalities.most_common()) or "text only"
        top = ", ".join(f"{answer[:24]!r} {count}" for answer, count in report.answers.most_common(3))
        answers = f"{len(report.answers)} different" + (f": {top}" if top else "")
        learned = longest = "-"
        if plan and plan["n"]:
            sampled = plan["n"] < report.samples
            share = round(plan["learned"] * report.samples / plan["n"]) if sampled else plan["learned"]
            learned = ("~" if sampled else "") + f"{share:,}"
            longest = f"{plan['longest']} ({plan['id']})"
        rows.append((name, report.samples, media, answers, learned, longest))
    if rows:
        columns(("source", "records", "media", "answers", "learned tokens", "longest, in slots"), rows, right=(1, 4))
        say()
