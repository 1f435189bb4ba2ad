"""The results of an evaluation, and `eval/results.json`, the file that holds them.

    {"version": 1, "run": NAME, "run_digest": SHA256, "created_by": "omniloom x.y.z", "tasks": {NAME: {...}}}

A task's object has exactly the fields of `TaskResult`. The reader is strict: an unknown or missing field, a value of
another type, or counts that disagree with the item records are errors, since every number must be one that was
measured. Equal results are equal bytes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from omniloom import __version__
from omniloom.errors import DataError
from omniloom.eval.intervals import Interval
from omniloom.files import write_whole

__all__ = [
    "FAILED",
    "UNPARSABLE",
    "VERSION",
    "Chance",
    "ItemRecord",
    "Probe",
    "Results",
    "TaskResult",
    "read_results",
    "write_results",
]

VERSION = 1
UNPARSABLE = "(unparsable)"
FAILED = "(failed)"
_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class Chance:
    """What guessing gives. `rule`: where `value` comes from; `band99`: its exact 99 % binomial band for n items.

    `majority`: the share of the most frequent expected answer. `uniform`: 1 / k over the k answers that occur.
    """

    __pydantic_config__ = _STRICT

    value: float
    band99: Interval
    rule: Literal["given", "majority"]
    majority: float
    uniform: float
    k: int


@dataclass(frozen=True)
class Probe:
    """A score under a probe: over the `n` samples it applies to, against the samples' own expected answers."""

    __pydantic_config__ = _STRICT

    n: int
    correct: int
    score: float
    interval95: Interval
    unparsable: int
    failed: int
    band99: Interval


@dataclass(frozen=True)
class ItemRecord:
    """One answered item. `answer` None: it failed, see `reason`. `parsed` None: the answer could not be read."""

    __pydantic_config__ = _STRICT

    id: str
    group: str | None
    expected: str
    answer: str | None
    parsed: str | None
    correct: bool
    reason: str | None = None


@dataclass(frozen=True)
class TaskResult:
    """A task's numbers. Shares lie in 0..1; `interval95` is Wilson's, `clustered95` resamples whole groups.

    `groups` counts the distinct groups; `clustered95` is None where there are none or only one. `confusion` maps
    expected to read answers to counts. `notes` says what could not be probed, and why.
    """

    __pydantic_config__ = _STRICT

    task: str
    metric: str
    modalities: tuple[str, ...]
    n: int
    correct: int
    score: float
    interval95: Interval
    groups: int
    clustered95: Interval | None
    chance: Chance
    above_chance: bool
    unparsable: int
    failed: int
    blind: Probe | None
    shuffled: Probe | None
    permuted: Probe | None
    alone: dict[str, Probe]
    confusion: dict[str, dict[str, int]]
    seed: int
    notes: tuple[str, ...]
    items: tuple[ItemRecord, ...] = field(repr=False)


@dataclass(frozen=True)
class Results:
    """All tasks of one evaluation of one run. `run_digest` is the digest of the resolved run file."""

    __pydantic_config__ = _STRICT

    run: str
    run_digest: str
    tasks: dict[str, TaskResult]
    created_by: str = f"omniloom {__version__}"
    version: Literal[1] = 1


_FILE = TypeAdapter(Results)


def write_results(path: str | Path, results: Results) -> None:
    """Write the file, whole or not at all."""
    write_whole(Path(path), json.dumps(asdict(results), ensure_ascii=False, allow_nan=False, indent=1) + "\n")


def read_results(path: str | Path) -> Results:
    """Read a file that `write_results` wrote.

    Raises:
        DataError: no such file, no JSON, another version, fields that do not belong, or counts that disagree.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the results: {error}. Run `omniloom eval` first.", file=str(path)) from error
    try:
        results = _FILE.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        message = f"{place}: {first['msg']}. These are no results of version {VERSION}."
        raise DataError(message, file=str(path)) from error
    for name, task in results.tasks.items():
        counted = (len(task.items), sum(item.correct for item in task.items))
        if (task.n, task.correct) != counted or task.task != name:
            raise DataError(
                f"task {name!r} claims {task.correct} of {task.n} right, its items say {counted[1]} of {counted[0]}. "
                "The file was altered; evaluate again.",
                file=str(path),
            )
    return results
