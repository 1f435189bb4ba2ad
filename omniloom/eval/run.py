"""Evaluate a trained run: every task its file declares, on held-out data, with its probes, into eval/results.json."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omniloom.checkpoint import load_model, seal
from omniloom.config import EvaluationConfig, RunConfig, digest
from omniloom.data.cache import FeatureCache
from omniloom.data.engine import Engine
from omniloom.data.sources import Source, open_source
from omniloom.errors import ConfigError, DataError, MediaError
from omniloom.eval.judge import Judge, label_of, output_item
from omniloom.eval.probes import derange
from omniloom.eval.results import Probe, Results, TaskResult, read_results, write_results
from omniloom.eval.tasks import FailedSample, run_task
from omniloom.files import write_whole
from omniloom.media import save, suffix_of
from omniloom.model import Sampling
from omniloom.sequence import Item, Sample, Text, Turn

__all__ = ["evaluate", "evaluate_model"]

Tell = Callable[[Mapping[str, Any]], None]


def evaluate(
    run: str | Path, *, tasks: Sequence[str] = (), batch: int = 32, allow_code: bool = False, tell: Tell | None = None
) -> Results:
    """Evaluate the run in a folder and write `eval/results.json` there.

    `tasks`: some of the run's tasks, measured anew beside what the file holds; all by default. `tell` receives
    {"event": "task", "task", "done", "total"}.

    Raises:
        CheckpointError: no trained run. ConfigError: a task the run does not declare, or none at all.
    """
    folder = Path(run)
    model, config = load_model(folder, allow_code=allow_code)
    cache = None if config.cache is None else FeatureCache.of(folder, config.cache)
    results = evaluate_model(Engine(model, batch=batch, cache=cache), config, folder, tasks=tasks, tell=tell)
    path = folder / "eval" / "results.json"
    if tasks and path.is_file() and (before := read_results(path)).run_digest == results.run_digest:
        measured = {**before.tasks, **results.tasks}
        results = replace(results, tasks={name: measured[name] for name in config.evaluation if name in measured})
    write_results(path, results)
    seal(folder)
    return results


def evaluate_model(
    engine: Engine, config: RunConfig, base: Path, *, tasks: Sequence[str] = (), tell: Tell | None = None
) -> Results:
    """The results of a model in memory; `base` is the folder that data paths start from. Writes phases to
    `eval/phases.json`."""
    unknown = [name for name in tasks if name not in config.evaluation]
    if unknown or not config.evaluation:
        raise ConfigError(f"the run declares the tasks {sorted(config.evaluation)}, not {unknown or 'any'}.")
    done: dict[str, TaskResult] = {}
    seconds: dict[str, float] = {}
    for name in tasks or config.evaluation:
        started = time.perf_counter()
        done |= _Task(engine, config, base, name, tell or (lambda event: None)).run()
        seconds[name] = time.perf_counter() - started
    write_whole(base / "eval" / "phases.json", json.dumps(seconds, indent=1) + "\n")
    return Results(config.name, digest(config), done)


class _Task:
    """One task of a run."""

    def __init__(self, engine: Engine, config: RunConfig, base: Path, name: str, tell: Tell) -> None:
        self.engine, self.config, self.base, self.name, self.tell = engine, config, base, name, tell
        self.task: EvaluationConfig = config.evaluation[name]
        self.source: Source = open_source(config.data[self.task.data], base)

    def run(self) -> dict[str, TaskResult]:
        samples = self._samples()
        if self.task.judge is None:
            return {self.name: self._measure(self.name, samples, self._text_answers)}
        judge, own = self._judge(samples)
        judged = [_as_label(sample) if isinstance(sample, Sample) else sample for sample in samples]
        made: dict[str, Any] = {}
        named = self._measure(self.name, judged, self._judged_answers(judge, made))
        for number, item in enumerate(named.items):
            if item.id in made:
                path = generated_file(self.base, self.name, number, suffix_of(made[item.id]))
                path.parent.mkdir(parents=True, exist_ok=True)
                save(made[item.id], path)
        note = f"judged by a classifier that names {own:.1%} of the real held-out items rightly"
        if "shuffled" in self.task.probes:
            live = [sample for sample in judged if isinstance(sample, Sample)]
            other = self._measure(
                self.name, _with_other_prompts(live, self.config.seed), self._judged_answers(judge, {})
            )
            probe = Probe(
                other.n,
                other.correct,
                other.score,
                other.interval95,
                other.unparsable,
                other.failed,
                other.chance.band99,
            )
            named = replace(named, shuffled=probe)
            note += "; shuffled: asked with the prompt of an item of another answer"
        return {self.name: replace(named, notes=(*named.notes, note))}

    def _samples(self) -> list[Sample | FailedSample]:
        """The task's samples, evenly spaced over its source if it is limited; broken ones stay, as failed."""
        count = len(self.source)
        limit = min(self.task.limit or count, count)
        result: list[Sample | FailedSample] = []
        for index in sorted({position * count // limit for position in range(limit)}):
            sample = self.source[index]
            try:
                result.append(self.engine.pipeline.prepare(sample, root=self.source.media_root, as_codes=False))
            except MediaError as error:
                result.append(FailedSample(sample.id, label_of(sample), str(error), sample.group, sample.modalities))
        return result

    def _measure(
        self, name: str, samples: Sequence[Sample | FailedSample], answers: Callable[[list[Sample]], list[str]]
    ) -> TaskResult:
        return run_task(
            name,
            samples,
            answers,
            metric=self.task.metric,
            probes=self.task.probes if self.task.judge is None else (),
            chance=self.task.chance,
            seed=self.config.seed,
            batch=8 * self.engine.batch,
            progress=lambda done, total: self.tell({"event": "task", "task": name, "done": done, "total": total}),
        )

    def _text_answers(self, samples: list[Sample]) -> list[str]:
        return [reply.text for reply in self.engine.answer(samples, Sampling(max_new=self.task.max_new))]

    def _judge(self, samples: Sequence[Sample | FailedSample]) -> tuple[Judge, float]:
        """The task's judge, and how well it does on the real items of this task."""
        assert self.task.judge is not None
        source = open_source(self.config.data[self.task.judge], self.base)
        pairs = [
            _output(self.engine.pipeline.prepare(sample, root=source.media_root, as_codes=False)) for sample in source
        ]
        judge = Judge([payload for payload, _ in pairs], [label for _, label in pairs])
        real = [_output(sample) for sample in samples if isinstance(sample, Sample)]
        return judge, judge.score([payload for payload, _ in real], [label for _, label in real])

    def _judged_answers(self, judge: Judge, made: dict[str, Any]) -> Callable[[list[Sample]], list[str]]:
        """What the judge sees in the items that the model generates; `made` collects the items by sample."""

        def answers(samples: list[Sample]) -> list[str]:
            replies = self.engine.answer(samples, Sampling(max_new=self.task.max_new))
            items = [next((part for part in reply.parts if isinstance(part, Item)), None) for reply in replies]
            made.update({sample.id: item.payload for sample, item in zip(samples, items, strict=True) if item})
            return ["" if item is None else judge.say(item.payload) for item in items]

        return answers


def generated_file(folder: Path, task: str, number: int, suffix: str) -> Path:
    """Where the item that was generated for a task's item lies in a run folder."""
    return folder / "eval" / "items" / task / f"{number:05d}{suffix}"


def _output(sample: Sample) -> tuple[Any, str]:
    item = output_item(sample)
    if item is None or not label_of(sample):
        raise DataError(f"sample {sample.id!r} has no output item with a label (`meta.label`), so no judge can use it.")
    return item.payload, label_of(sample)


def _as_label(sample: Sample) -> Sample:
    """The sample with its drawn answer replaced by the name of what it shows."""
    return replace(sample, turns=(*sample.prompt().turns, Turn("assistant", (Text(label_of(sample)),))))


def _with_other_prompts(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """Every sample asked with the prompt of one that expects something else: a model that reads its prompt fails."""
    # The exchange works on media; a prompt of text alone lends its identity to one stand-in item.
    stand_ins = [replace(sample, turns=(Turn("user", (Item("prompt", sample),)),)) for sample in samples]
    donors = derange(stand_ins, [label_of(sample) for sample in samples], seed)
    return [
        replace(sample, turns=(*samples[donor].prompt().turns, sample.turns[-1]))
        for sample, donor in zip(samples, donors, strict=True)
        if donor is not None
    ]
