"""Run one task: ask, score, ask again without or with exchanged media, and say how sure the numbers are.

The run knows no model: `answer_fn` gets prompts and gives one text each. Same samples, answers and seed give the
same result, whatever the batch size. The denominator is fixed: a sample that cannot be answered is wrong, with
its reason, never dropped.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from omniloom.errors import ConfigError, DataError, OmniloomError, did_you_mean
from omniloom.eval.intervals import chance_band, cluster_bootstrap, wilson
from omniloom.eval.metrics import Expected, Scorer, scorer
from omniloom.eval.probes import PROBES, derange, only, swap_items, without_media
from omniloom.eval.results import FAILED, UNPARSABLE, Chance, ItemRecord, Probe, TaskResult
from omniloom.sequence.sample import Sample

__all__ = ["AnswerFn", "FailedSample", "run_task"]

AnswerFn = Callable[[list[Sample]], list[str]]


@dataclass(frozen=True)
class FailedSample:
    """A sample of the task that could not even be read: it stays in the denominator as wrong, with its reason."""

    id: str
    expected: str
    reason: str
    group: str | None = None
    modalities: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Asked:
    """One sample as the run needs it; `prompt` None means it failed before it could be asked."""

    id: str
    group: str | None
    prompt: Sample | None
    expected: Expected
    label: str
    reason: str | None = None


def run_task(
    name: str,
    samples: Sequence[Sample | FailedSample],
    answer_fn: AnswerFn,
    *,
    metric: str = "exact",
    probes: Sequence[str] = ("blind", "shuffled"),
    chance: float | None = None,
    seed: int = 0,
    batch: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> TaskResult:
    """Ask every sample's prompt, score the answers, and run the probes.

    The expected answer is the text of the sample's last assistant turn; `meta["accept"]` lists other right answers
    and `meta["options"]` a choice's options. Prompts go to `answer_fn` in input order, at most `batch` at a time;
    blind prompts that read alike are asked once.

    Args:
        chance: success probability of guessing; None takes the share of the most frequent expected answer.
        progress: called with (prompts answered, prompts in all) after every batch.
    Raises:
        ConfigError: unknown metric or probe.
        DataError: no samples, ids that repeat, a sample without expected answer, an `answer_fn` that gives another
            number of answers, or a task of which every single sample fails: then nothing was measured.
    """
    score = scorer(metric)
    for probe in probes:
        if probe not in PROBES:
            raise ConfigError(f"unknown probe {probe!r} of task {name!r}.{did_you_mean(probe, PROBES)}")
    if batch < 1:
        raise ConfigError(f"task {name!r} has batch {batch}; expected at least 1.")
    asked = [_ask(name, sample, score) for sample in samples]
    repeated = [key for key, count in Counter(one.id for one in asked).items() if count > 1]
    if not asked or repeated:
        problem = f"has the id {repeated[0]!r} more than once" if repeated else "has no samples"
        raise DataError(f"task {name!r} {problem}. Every item counts once; correct the data source.")

    live = [one for one in asked if one.prompt is not None]
    planned, notes = _plan_probes(live, probes, seed)
    runner = _Runner(answer_fn, score, batch, progress)
    runner.total = len(live) + sum(len(_distinct(probe, rows)) for probe, rows in planned.items())
    scored = iter(runner.run("", [(one, one.prompt) for one in live if one.prompt is not None]))
    items = tuple(next(scored) if one.prompt is not None else _failed(one, one.reason or "") for one in asked)
    if all(item.reason is not None for item in items):
        raise DataError(f"every sample of task {name!r} failed; the first, {items[0].id!r}: {items[0].reason}")

    guess = _chance(asked, chance)
    results: dict[str, Probe] = {}
    for probe, rows in planned.items():
        records = runner.run(probe, rows)
        if all(record.reason is not None for record in records):
            notes.append(f"probe {probe}: every prompt failed, so it has no score; the first: {records[0].reason}")
        else:
            results[probe] = _probe(records, guess.value)
    correct, n = sum(item.correct for item in items), len(items)
    groups = [item.group for item in items]
    named = {group for group in groups if group is not None}
    seen = [sample.prompt().modalities if isinstance(sample, Sample) else sample.modalities for sample in samples]
    # An item without a group is a group of its own; `None` would tie all of them together.
    clusters = [item.group if item.group is not None else ("item", item.id) for item in items]
    clustered = cluster_bootstrap([item.correct for item in items], clusters, seed=seed) if len(named) > 1 else None
    return TaskResult(
        task=name,
        metric=metric,
        modalities=tuple(dict.fromkeys(modality for modalities in seen for modality in modalities)),
        n=n,
        correct=correct,
        score=correct / n,
        interval95=wilson(correct, n),
        groups=len(named),
        clustered95=clustered,
        chance=guess,
        above_chance=correct / n > guess.band99.high,
        unparsable=_unparsable(items),
        failed=sum(item.reason is not None for item in items),
        blind=results.get("blind"),
        shuffled=results.get("shuffled"),
        permuted=results.get("permuted"),
        alone={key.partition(":")[2]: value for key, value in results.items() if key.startswith("alone:")},
        confusion=_confusion(asked, items),
        seed=seed,
        notes=tuple(notes),
        items=items,
    )


class _Runner:
    """Asks prompts in batches of input order, scores them, and counts what is done."""

    def __init__(
        self, answer_fn: AnswerFn, score: Scorer, batch: int, progress: Callable[[int, int], None] | None
    ) -> None:
        self.answer_fn = answer_fn
        self.score = score
        self.batch = batch
        self.progress = progress
        self.done = 0
        self.total = 0

    def run(self, probe: str, rows: Sequence[tuple[_Asked, Sample]]) -> list[ItemRecord]:
        """One record per row, in order."""
        first = _distinct(probe, rows)
        answers: dict[Hashable, str | OmniloomError] = {}
        keys = list(first)
        for start in range(0, len(keys), self.batch):
            part = keys[start : start + self.batch]
            answers.update(zip(part, self._answer([first[key] for key in part]), strict=True))
            self.done += len(part)
            if self.progress is not None:
                self.progress(self.done, self.total)
        return [self._record(one, answers[_question(probe, prompt)]) for one, prompt in rows]

    def _answer(self, prompts: list[Sample]) -> list[str | OmniloomError]:
        try:
            answers = self.answer_fn(prompts)
        except OmniloomError as error:
            if len(prompts) == 1:
                return [error]
            # One bad item must not take its neighbours along: ask each alone, so that only it fails.
            return [self._answer([prompt])[0] for prompt in prompts]
        if len(answers) != len(prompts):
            raise DataError(f"the answer function gave {len(answers)} answers to {len(prompts)} prompts. Mend it.")
        return list(answers)

    def _record(self, one: _Asked, answer: str | OmniloomError) -> ItemRecord:
        if isinstance(answer, OmniloomError):
            return _failed(one, f"{type(answer).__name__}: {answer}")
        correct, parsed = self.score(answer, one.expected)
        return ItemRecord(one.id, one.group, one.expected.text, answer, parsed, correct)


def _distinct(probe: str, rows: Sequence[tuple[_Asked, Sample]]) -> dict[Hashable, Sample]:
    first: dict[Hashable, Sample] = {}
    for _, prompt in rows:
        first.setdefault(_question(probe, prompt), prompt)
    return first


def _question(probe: str, prompt: Sample) -> Hashable:
    # Without their media many prompts read alike; greedy decoding answers them alike, so they are asked once.
    return prompt.turns if probe == "blind" else prompt.id


def _ask(task: str, sample: Sample | FailedSample, score: Scorer) -> _Asked:
    if isinstance(sample, FailedSample):
        expected = Expected(sample.expected, options=sample.options)
        return _Asked(sample.id, sample.group, None, expected, _label(expected, score), sample.reason)
    answer = sample.answer()
    text = "" if answer is None else answer.text.strip()
    if not text:
        raise DataError(f"sample {sample.id!r} of task {task!r} has no expected answer: no assistant text at its end.")
    expected = Expected(text, tuple(sample.meta.get("accept", ())), tuple(sample.meta.get("options", ())))
    return _Asked(sample.id, sample.group, sample.prompt(), expected, _label(expected, score))


def _label(expected: Expected, score: Scorer) -> str:
    """The expected answer as its own scorer reads it, so that "No." and "no" are one answer."""
    parsed = score(expected.text, expected).parsed
    if parsed is None:
        raise DataError(f"the expected answer {expected.text!r} cannot be read by the metric. Correct one of them.")
    return parsed


def _plan_probes(
    live: list[_Asked], probes: Sequence[str], seed: int
) -> tuple[dict[str, list[tuple[_Asked, Sample]]], list[str]]:
    """The prompts of every probe that applies, and a note for every one that does not."""
    planned: dict[str, list[tuple[_Asked, Sample]]] = {}
    notes: list[str] = []
    pairs = [(one, one.prompt) for one in live if one.prompt is not None and one.prompt.modalities]
    for probe in dict.fromkeys(probes):
        if probe == "blind":
            planned[probe] = [(one, without_media(prompt)) for one, prompt in pairs]
        elif probe == "alone":
            kept: dict[str, list[tuple[_Asked, Sample]]] = defaultdict(list)
            for one, prompt in pairs:
                for modality in prompt.modalities if len(prompt.modalities) > 1 else ():
                    kept[modality].append((one, only(prompt, modality)))
            planned.update({f"alone:{modality}": rows for modality, rows in kept.items()})
        else:
            prompts = [prompt for _, prompt in pairs]
            donors = derange(prompts, [one.label if probe == "shuffled" else one.id for one, _ in pairs], seed)
            planned[probe] = [
                (one, swap_items(prompt, prompts[donor]))
                for (one, prompt), donor in zip(pairs, donors, strict=True)
                if donor is not None
            ]
        if not planned.get(probe) and not any(key.startswith(f"{probe}:") for key in planned):
            notes.append(f"probe {probe}: no sample of this task can be probed so")
        elif probe in planned and len(planned[probe]) < len(live):
            notes.append(f"probe {probe}: applies to {len(planned[probe])} of {len(live)} samples")
    return {key: rows for key, rows in planned.items() if rows}, notes


def _chance(asked: list[_Asked], given: float | None) -> Chance:
    counts = Counter(one.label for one in asked)
    majority = max(counts.values()) / len(asked)
    value = majority if given is None else float(given)
    band = chance_band(value, len(asked))
    return Chance(value, band, "majority" if given is None else "given", majority, 1 / len(counts), len(counts))


def _probe(records: list[ItemRecord], chance: float) -> Probe:
    n, correct = len(records), sum(record.correct for record in records)
    failed = sum(record.reason is not None for record in records)
    band = chance_band(chance, n)
    return Probe(n, correct, correct / n, wilson(correct, n), _unparsable(records), failed, band)


def _failed(one: _Asked, reason: str) -> ItemRecord:
    return ItemRecord(one.id, one.group, one.expected.text, None, None, False, reason)


def _unparsable(records: Sequence[ItemRecord]) -> int:
    return sum(record.parsed is None and record.reason is None for record in records)


def _confusion(asked: list[_Asked], items: Sequence[ItemRecord]) -> dict[str, dict[str, int]]:
    """Counts by expected label, then by the answer as read; both in alphabetical order."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for one, item in zip(asked, items, strict=True):
        read = FAILED if item.reason is not None else UNPARSABLE if item.parsed is None else item.parsed
        counts[one.label][read] += 1
    return {label: dict(sorted(counts[label].items())) for label in sorted(counts)}
