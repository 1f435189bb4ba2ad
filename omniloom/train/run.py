"""A whole run: settle it, build the model, train its stages, save it. Killed at any moment, the same call goes on.

train("run.yaml", out="runs/mine")        ->  RunFolder path, with run.yaml, weights, manifest and metrics
"""

from __future__ import annotations

import difflib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from omniloom.checkpoint import begin_with, initial_digests, read_manifest, save_model
from omniloom.checkpoint.tensors import assign_strict
from omniloom.config import LoadedRun, RunConfig, check_parts, digest, dump, load_run
from omniloom.data import FeatureCache, open_source
from omniloom.data.pipeline import Pipeline
from omniloom.data.sources import Source
from omniloom.errors import ConfigError, TrainingError
from omniloom.files import remove_leftovers, write_whole
from omniloom.model import OmniModel, compose, require_read
from omniloom.train.optimizer import load_optimizer_state, optimizer_state
from omniloom.train.resolve import calibrate, pin_threads, settle
from omniloom.train.stage import Metrics, Stage, Trainer
from omniloom.train.state import Progress, StateFolder, run_lock
from omniloom.train.warm_start import warm_start

__all__ = ["open_sources", "train"]

Tell = Callable[[Mapping[str, Any]], None]


def train(
    run: str | Path | LoadedRun,
    *,
    out: str | Path | None = None,
    sets: Sequence[str] = (),
    fresh: bool = False,
    tell: Tell | None = None,
) -> Path:
    """Train a run into its folder (`runs/NAME` by default); returns the folder.

    A folder that holds the same run unfinished is resumed, a finished one is returned as it is. `fresh` removes what
    is there. `tell` receives events: {"event": "stage" | "step" | "sample" | "note" | "saved", ...}.

    Raises:
        ConfigError, DataError, MissingAssetError: before anything is trained.
        TrainingError: the folder holds another run, or the loss is not finite.
        FreezeError: a frozen part changed, or a selector does not fit.
    """
    loaded = run if isinstance(run, LoadedRun) else load_run(run, sets=sets)
    wrong = check_parts(loaded)
    if wrong:
        raise ConfigError(wrong[0].message, file=wrong[0].file, line=wrong[0].line)
    if not loaded.config.stages and not loaded.config.init:
        raise ConfigError(
            "the run has no `stages` to train and no `init` to begin with, so there is nothing to do.",
            file=str(loaded.sources[0]),
        )
    folder = Path(out) if out is not None else Path("runs") / loaded.config.name
    with run_lock(folder):
        if fresh:
            _clear(folder)
        return _Run(loaded, folder.resolve(), tell or (lambda event: None)).train()


def open_sources(config: RunConfig, base: Path, names: Sequence[str] | None = None) -> dict[str, Source]:
    """The named sources of a run (all by default), opened; `base` is the folder relative paths start from."""
    return {name: open_source(config.data[name], base) for name in (names if names is not None else config.data)}


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != "lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


_BEGUN = ("manifest.json", "metrics.jsonl", "components", "state")


class _Run:
    """One call of `train`."""

    def __init__(self, loaded: LoadedRun, folder: Path, tell: Tell) -> None:
        self.folder, self.tell = folder, tell
        self._refuse_other(loaded)
        remove_leftovers(folder)
        self.settled = settle(loaded, folder)
        self.states = StateFolder(folder)
        self.elapsed_s = 0.0
        self.begun: set[str] = set()

    def _refuse_other(self, loaded: LoadedRun) -> None:
        """Refuse a folder that another run was trained in, before anything in it is touched."""
        known = self.folder / "request.yaml"
        if known.is_file():
            asked, before = dump(loaded.config), known.read_text()
            if not any((self.folder / name).exists() for name in _BEGUN):
                # A call that failed before its first step leaves nothing that another would spoil.
                shutil.rmtree(self.folder / "parts", ignore_errors=True)
                write_whole(known, asked)
            elif asked != before:
                changed = [
                    line for line in difflib.unified_diff(before.splitlines(), asked.splitlines(), n=0, lineterm="")
                ][2:]
                shown = "; ".join(line for line in changed if not line.startswith("@@"))[:400]
                raise TrainingError(
                    f"{self.folder} holds a run of other settings ({shown}). "
                    "Choose another --out, or start it anew with --fresh."
                )
        else:
            write_whole(known, dump(loaded.config))

    def train(self) -> Path:
        if (self.folder / "manifest.json").is_file():
            read_manifest(self.folder)
            self.states.remove()
            self.tell({"event": "note", "text": f"{self.folder} is trained already; --fresh trains it anew"})
            return self.folder
        assert self.settled.threads is not None
        pin_threads(self.settled.threads)
        model = compose(self.settled, base=self.folder)
        require_read(model)
        self.begun = begin_with(model, self.settled, self.folder)
        used = {name for stage in self.settled.stages for name in stage.data}
        for name, task in self.settled.evaluation.items():
            if task.data in used:
                text = (
                    f"evaluation {name!r} asks what was trained on, {task.data!r}; its score says nothing of new data"
                )
                self.tell({"event": "note", "text": text})
        sources = open_sources(self.settled, self.folder, [name for name in self.settled.data if name in used])
        pipeline = Pipeline(model, cache=FeatureCache.of(self.folder, self.settled.cache))
        config = self._resolved(model, sources, pipeline)
        self._train_stages(config, model, sources, pipeline)
        return self.folder

    def _resolved(self, model: OmniModel, sources: Mapping[str, Source], pipeline: Pipeline) -> RunConfig:
        """The run with steps for minutes: measured the first time, read back every other time."""
        path = self.folder / "state" / "resolved.yaml"
        known = {name: source.digest() for name, source in sources.items()}
        known |= initial_digests(self.settled, self.folder)
        digests = json.dumps(known, indent=1, sort_keys=True) + "\n"
        if path.is_file():
            text = path.read_text()
            if (self.folder / "data.json").read_text() != digests:
                raise TrainingError(
                    f"the data of the run in {self.folder}, or what it begins with, have changed since it began. "
                    "Restore them, or start anew with --fresh."
                )
            resolved = load_run(path).config
            if dump(resolved) != text:
                raise TrainingError(f"{path} was edited. Start the run anew with --fresh.")
            return resolved
        resolved = calibrate(
            self.settled, model, sources, pipeline, lambda text: self.tell({"event": "note", "text": text})
        )
        write_whole(self.folder / "data.json", digests)
        write_whole(path, dump(resolved))
        return resolved

    def _train_stages(
        self, config: RunConfig, model: OmniModel, sources: Mapping[str, Source], pipeline: Pipeline
    ) -> None:
        saved = self.states.newest()
        run_digest = digest(config)
        progress = Progress(run_digest, 0, 0, 0, 0.0, ())
        weights: dict[str, Tensor] = {}
        moments: dict[str, Tensor] = {}
        if saved is not None:
            progress, weights, moments = saved
            if progress.run_digest != run_digest:
                raise TrainingError(f"the states in {self.folder} belong to another run. Start anew with --fresh.")
            assign_strict(_values(model, progress.trained), weights, what="the saved state")
            self.tell({"event": "note", "text": f"resuming at stage {progress.stage}, step {progress.step}"})
        metrics = Metrics(self.folder / "metrics.jsonl", progress.metrics_bytes)
        self.elapsed_s = progress.elapsed_s
        trained = set(progress.trained)
        try:
            for number in range(progress.stage, len(config.stages)):
                first = progress.step if number == progress.stage else 0
                stage = Stage(
                    config.stages[number], {name: sources[name] for name in config.stages[number].data}, config.seed
                )
                trainer = Trainer(model, stage, pipeline)
                trained |= set(trainer.trained_components)
                if first:
                    load_optimizer_state(trainer.optimizer, moments)
                self._run_stage(number, first, trainer, metrics, run_digest, trained)
                if number + 1 < len(config.stages):
                    self._save(number + 1, 0, trainer, metrics, run_digest, trained, moments=False)
        finally:
            metrics.close()
        save_model(model, config, self.folder, trained=trained | self.begun)
        self.states.remove()
        self.tell({"event": "saved", "folder": str(self.folder), "elapsed_s": self.elapsed_s})

    def _run_stage(
        self, number: int, first: int, trainer: Trainer, metrics: Metrics, run_digest: str, trained: set[str]
    ) -> None:
        config, steps = trainer.stage.config, trainer.stage.steps
        started, before = time.perf_counter(), self.elapsed_s
        count = sum(value.numel() for value in trainer.trainable.values())
        self.tell({"event": "stage", "stage": config.name, "steps": steps, "first": first, "parameters": count})

        def after(step: int, values: Mapping[str, float], name: str = config.name, total: int = steps) -> None:
            self.elapsed_s = before + time.perf_counter() - started
            record = {"stage": name, "step": step, **values, "elapsed_s": self.elapsed_s}
            metrics.write(record)
            self.tell({"event": "step", "steps": total, **record})

        if config.warm_start is not None and first == 0:
            warm = config.warm_start
            warm_start(trainer, warm, lambda step, values: after(step, values, f"{config.name}/warm_start", warm.steps))

        def after_step(step: int, values: dict[str, float]) -> None:
            after(step, values)
            done = step + 1
            if config.sample_every and done % config.sample_every == 0:
                for said in trainer.say(step):
                    metrics.write({"stage": config.name, "step": step, "sample": said})
                    self.tell({"event": "sample", "stage": config.name, "step": step, **said})
            if config.save_every and done % config.save_every == 0 and done < steps:
                self._save(number, done, trainer, metrics, run_digest, trained)

        trainer.run(first, after_step)

    def _save(
        self,
        stage: int,
        step: int,
        trainer: Trainer,
        metrics: Metrics,
        run_digest: str,
        trained: set[str],
        *,
        moments: bool = True,
    ) -> None:
        progress = Progress(run_digest, stage, step, metrics.bytes, self.elapsed_s, tuple(sorted(trained)))
        weights = _values(trainer.model, trained)
        self.states.save(progress, weights, optimizer_state(trainer.optimizer) if moments else {})


def _values(model: OmniModel, components: Iterable[str]) -> dict[str, Tensor]:
    """Parameters and buffers of components by "component.name": running statistics are trained, too."""
    everything = model.components()
    return {
        f"{component}.{name}": value
        for component in sorted(components)
        for name, value in everything[component].items()
    }
