"""One more modality onto a run: written as a run of its own, trained, and every old score measured again.

add_modality("runs/mine", "touch.py", data="touch/train/", test="touch/test/")      ->  Added

The new run begins with all weights of the old one and trains what its stages name, by default the new parts alone, so
that what the old run knew stays as it was, bit for bit: which is measured, not assumed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from omniloom.checkpoint import load_model, read_manifest, seal
from omniloom.config import RunConfig, digest, load_run, relocated
from omniloom.config.modality_file import resolve_modality
from omniloom.config.paths import moved
from omniloom.config.reading import read_file, yaml_text
from omniloom.config.table import component_of
from omniloom.data.pipeline import Pipeline
from omniloom.data.sources import open_source
from omniloom.errors import ConfigError, did_you_mean
from omniloom.eval.compare import Comparison, compare
from omniloom.eval.results import Results, TaskResult, read_results
from omniloom.eval.run import evaluate
from omniloom.files import write_whole
from omniloom.model import OmniModel
from omniloom.registry import find, schema, split_spec
from omniloom.sequence import Sample, Text, Turn
from omniloom.train.run import train

__all__ = ["Added", "add_modality"]

Tell = Callable[[Mapping[str, Any]], None]
_KEYS = ("modalities", "components", "fusers", "adapters", "data", "stages", "evaluation")
_MARK = "# Written by `omniloom add-modality`, which writes it anew when it is called again.\n"
# Samples of each old task whose hidden states are compared, beside plain text.
_COMPARED = 8
_PLAIN = ("What is this?", "Tell me something about the sea.")


@dataclass(frozen=True)
class Added:
    """What came of it.

    `run`: the new run's folder. `minutes`: of training. `parameters`: that trained, by stage. `new`: scores of the new
    tasks. `old`: for each task of the old run, both scores on the same items. `unchanged`: for each old task, and for
    "text", whether the hidden states of its samples are bit-identical in both runs. `changed`: components of the old
    run whose weights are others now.
    """

    run: Path
    modalities: tuple[str, ...]
    minutes: float
    parameters: Mapping[str, int]
    new: Mapping[str, TaskResult]
    old: Sequence[Comparison]
    unchanged: Mapping[str, bool]
    changed: Sequence[str]


def add_modality(
    run: str | Path,
    file: str | Path,
    *,
    out: str | Path | None = None,
    name: str | None = None,
    data: str | Path | None = None,
    test: str | Path | None = None,
    prompt: str = "What is this?",
    steps: int = 300,
    sets: Sequence[str] = (),
    fresh: bool = False,
    allow_code: bool = False,
    tell: Tell | None = None,
) -> Added:
    """Train a modality onto the run in a folder, into a run of its own; interrupted, the same call goes on.

    Args:
        run: a run folder.
        file: a modality file (`touch.py`), which needs `data` and gets a stage that trains what begins at random: all
            of its own, or its projectors behind a published encoder; or a YAML file with any of `modalities`,
            `components`, `fusers`, `adapters`, `data`, `stages`, `evaluation`, merged over the run's own.
        out: folder of the new run, `RUN-NAME` beside the old one by default; its run file is written as `OUT.yaml`.
        name: of the modality; the file's by default.
        data, test: of a modality file: JSONL of conversations, or a folder of classes; `test` is what it is scored on.
        prompt: asked of items in a folder of classes.
        steps: of the stage that a modality file gets.
        sets: `a.b=value` over the run file that is written.
        allow_code: the old run brings part files of its own; run them only if you have read them.
    Raises:
        ConfigError: a name that is taken, a file in the place of the run file, or nothing to train.
        CheckpointError: no run folder.
    """
    folder = Path(run).resolve()
    manifest = read_manifest(folder)
    config = load_model(folder, allow_code=allow_code)[1]  # every error of the old run comes before anything is written
    source = Path(file)
    target = Path(out).resolve() if out is not None else folder.with_name(f"{folder.name}-{name or source.stem}")
    tell = tell or (lambda event: None)
    written = target.with_name(f"{target.name}.yaml")
    if written.exists() and not written.read_text(errors="replace").startswith(_MARK):
        raise ConfigError(f"{written} is there already, and by no `omniloom add-modality`. Choose another --out.")
    values, added = _values(folder, source, written.parent, name, data, test, prompt, steps)
    written.parent.mkdir(parents=True, exist_ok=True)
    write_whole(written, _MARK + yaml_text({**values, "name": target.name}))
    loaded = load_run(written, sets=sets)
    before = _results(folder, allow_code, tell)
    started = time.perf_counter()
    was_there = (target / "manifest.json").is_file() and not fresh
    train(loaded, out=target, fresh=fresh, tell=tell)
    minutes = (time.perf_counter() - started) / 60
    after = evaluate(target, allow_code=True, tell=tell) if loaded.config.evaluation else None
    # One after the other, since two whole models may not fit; and both now, with the threads that training pinned.
    computed = _computed(load_model(folder, allow_code=True)[0], config, folder)
    new = load_model(target, allow_code=True)[0]
    result = Added(
        target,
        added,
        _trained_minutes(target) if was_there else minutes,
        {
            stage.name: sum(value.numel() for value in new.select(stage.train).values())
            for stage in loaded.config.stages
        },
        {} if after is None else {task: one for task, one in after.tasks.items() if task not in config.evaluation},
        [] if before is None or after is None else compare(before, after),
        _unchanged(computed, _computed(new, config, folder)),
        _changed(manifest, read_manifest(target)),
    )
    write_whole(target / "added.json", json.dumps(_plain(result), indent=1) + "\n")
    seal(target)
    return result


def _values(
    folder: Path,
    file: Path,
    base: Path,
    name: str | None,
    data: str | Path | None,
    test: str | Path | None,
    prompt: str,
    steps: int,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The values of the new run file, which will lie in `base`; and the names of the modalities it adds."""
    config = relocated(load_run(folder / "run.yaml").config, folder, base)
    values = config.model_dump(mode="json", by_alias=True)
    values |= {"init": {"*": _from(folder, base)}, "stages": []}
    if file.suffix == ".py":
        addition = _of_modality_file(file, base, name or file.stem, data, test, prompt, steps)
    else:
        tree = read_file(file)
        unknown = [key for key in tree.value if key not in _KEYS]
        if unknown:
            raise ConfigError(f"{file} has no place for {unknown[0]!r}.{did_you_mean(str(unknown[0]), _KEYS)}")
        addition = moved(tree, file.resolve().parent, base).plain()
    added = tuple(addition.get("modalities", {}))
    if not added:
        raise ConfigError(f"{file} adds no modality. Give it rows under `modalities:`.")
    for table in _KEYS:
        for key in addition.get(table, {}) if table != "stages" else ():
            if key in values[table]:
                raise ConfigError(f"the run has {key!r} in `{table}` already. Name the new one otherwise.")
    for table in _KEYS:
        rows = addition.get(table)
        values[table] = [*(rows or [])] if table == "stages" else {**values[table], **(rows or {})}
    if not values["stages"]:
        raise ConfigError(f"{file} declares no stage, so nothing would be trained. Give it `stages:`.")
    return values, added


def _of_modality_file(
    file: Path, base: Path, name: str, data: str | Path | None, test: str | Path | None, prompt: str, steps: int
) -> dict[str, Any]:
    """What a modality file adds: its row, its data, and one stage that trains its own parts."""
    if data is None:
        raise ConfigError(f"{file} says what a modality is, not where its data are. Pass them with --data.")
    train_name, test_name, use = f"{name}_train", f"{name}_test", _from(file.resolve(), base)
    addition: dict[str, Any] = {
        "modalities": {name: {"use": use}},
        "data": {train_name: _source(Path(data), base, name, prompt)},
        "stages": [
            {
                "name": f"add_{name}",
                "train": _beginners(name, use, base),
                "data": {train_name: 1.0},
                "steps": steps,
                "batch": 16,
                "lr": 1e-3,
                "warm_start": {"steps": steps, "batch": 32, "lr": 1e-3},
            }
        ],
    }
    if test is not None and Path(test).resolve() == Path(data).resolve():
        raise ConfigError(
            f"{test} is what the modality is trained on, so its score would say nothing. Name other data."
        )
    if test is not None:
        addition["data"][test_name] = _source(Path(test), base, name, prompt)
        addition["evaluation"] = {name: {"data": test_name}}
    return addition


def _beginners(name: str, use: str, base: Path) -> list[str]:
    """Globs over what a modality has that begins at random. A published encoder is left as it is: it has learned, and
    the stage's rate is one for beginners; unless there is nothing else."""
    row = resolve_modality(use, base)
    taken: Mapping[str, Any] = row.get("in") or {}
    encoder, projector = taken.get("encoder"), taken.get("projector")
    if encoder is None or component_of(encoder) is not None:
        return [f"{name}/*"]
    kind, options = split_spec(encoder, where=f"the encoder of {use}")
    is_published = "weights" in schema(find("encoders", kind, base=base)) and bool(options.get("weights", True))
    links = projector if isinstance(projector, list) else [] if projector is None else [projector]
    own = [f"{name}/projector*"] if any(component_of(link) is None for link in links) else []
    own += [f"{name}/codec"] if (row.get("out") or {}).get("codec") is not None else []
    return own if is_published and own else [f"{name}/*"]


def _source(path: Path, base: Path, modality: str, prompt: str) -> dict[str, Any]:
    place = _from(path.resolve(), base)
    if path.is_dir():
        return {"type": "folder", "path": place + "/", "modality": modality, "prompt": prompt}
    if path.suffix == ".jsonl":
        return {"type": "jsonl", "path": place}
    raise ConfigError(f"{path} is neither a folder of classes nor a .jsonl file. Describe other data in a YAML file.")


def _from(path: Path, base: Path) -> str:
    """A path as a run file in `base` writes it."""
    relative = Path(os.path.relpath(path, base)).as_posix()
    return relative if relative.startswith("../") else f"./{relative}"


def _results(folder: Path, allow_code: bool, tell: Tell) -> Results | None:
    """The old run's scores: those of its folder where they are of this very run, else measured now."""
    config = load_run(folder / "run.yaml").config
    if not config.evaluation:
        return None
    path = folder / "eval" / "results.json"
    if path.is_file() and (known := read_results(path)).run_digest == digest(config):
        if set(known.tasks) == set(config.evaluation):
            return known
    return evaluate(folder, allow_code=allow_code, tell=tell)


def _trained_minutes(folder: Path) -> float:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    elapsed = [record["elapsed_s"] for line in lines if "elapsed_s" in (record := json.loads(line))]
    return max(elapsed, default=0.0) / 60


@torch.no_grad()
def _computed(model: OmniModel, config: RunConfig, folder: Path) -> dict[str, list[torch.Tensor]]:
    """The hidden states of plain text and of a few samples of every task of the old run."""
    asked = [Sample(f"text-{index}", (Turn("user", (Text(text),)),)) for index, text in enumerate(_PLAIN)]
    found = {"text": [_hidden(model, sample, None) for sample in asked]}
    for name, task in config.evaluation.items():
        source = open_source(config.data[task.data], folder)
        count = min(_COMPARED, len(source))
        chosen = [source[index * len(source) // count] for index in range(count)]
        found[name] = [_hidden(model, sample, source.media_root) for sample in chosen]
    return found


def _hidden(model: OmniModel, sample: Sample, root: Path | None) -> torch.Tensor:
    pipeline = Pipeline(model)
    (plan,) = pipeline.plans([pipeline.prepare(sample.prompt(), root=root)], ask=True)
    return model.hidden(plan).cpu()


def _unchanged(before: Mapping[str, list[torch.Tensor]], after: Mapping[str, list[torch.Tensor]]) -> dict[str, bool]:
    """For each of them whether both runs compute the same, bit for bit."""
    return {name: all(map(torch.equal, old, after[name])) for name, old in before.items()}


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    components = after["components"]
    return [
        name
        for name, facts in before["components"].items()
        if name not in components or components[name]["digest"] != facts["digest"]
    ]


def _plain(result: Added) -> dict[str, Any]:
    plain = {**vars(result), "run": result.run.name, "old": [asdict(row) for row in result.old]}
    scores = {
        name: {
            "n": task.n,
            "score": task.score,
            "interval95": [task.interval95.low, task.interval95.high],
            "chance": task.chance.value,
        }
        for name, task in result.new.items()
    }
    return {**plain, "new": scores}
