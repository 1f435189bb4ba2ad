"""What a report and a model card are made of: plain fields that a run folder can fill. Empty fields leave their
section out; nothing is invented for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omniloom.eval.results import ItemRecord, Results, TaskResult
from omniloom.model.graph import GraphEdge, GraphNode, NodeKind

__all__ = ["DataRow", "Example", "GraphEdge", "GraphNode", "Licence", "NodeKind", "Part", "ReportData", "pick_examples"]

Part = tuple[str, Any]


@dataclass(frozen=True)
class Example:
    """One held-out or generated item. A part is ("text", str) or (modality, payload), in reading order.

    `correct` None: not judged, no mark is drawn. `reason`: why an item failed, if it did.
    """

    task: str
    parts: Sequence[Part]
    expected: str
    answer_parts: Sequence[Part]
    correct: bool | None = None
    id: str = ""
    reason: str | None = None


@dataclass(frozen=True)
class Licence:
    """A packaged model or data set and the terms it comes under. `source`: the package or project it comes from."""

    name: str
    what: str
    licence: str
    source: str = ""


@dataclass(frozen=True)
class DataRow:
    """A data source of the run: its records per split and what keeps the splits apart."""

    name: str
    modalities: Sequence[str]
    train: int | None = None
    held_out: int | None = None
    grouped_by: str = ""
    digest: str = ""


@dataclass(frozen=True)
class ReportData:
    """Everything a report shows.

    `metrics` are the records of metrics.jsonl; `stages` is the order of the stages in the graph's legend; `phases_s`
    are seconds and `memory_gb` gigabytes by name; `environment` is name -> value; `chat` are commands to copy,
    `change` are hints on what to change, `notes` are limits of this run. `mermaid` is the graph's source text.
    """

    name: str
    summary: str = ""
    run_yaml: str = ""
    results: Results | None = None
    metrics: Sequence[Mapping[str, Any]] = ()
    examples: Sequence[Example] = ()
    generated: Sequence[Example] = ()
    stages: Sequence[str] = ()
    nodes: Sequence[GraphNode] = ()
    edges: Sequence[GraphEdge] = ()
    mermaid: str = ""
    phases_s: Mapping[str, float] = field(default_factory=dict)
    memory_gb: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    data: Sequence[DataRow] = ()
    licences: Sequence[Licence] = ()
    chat: Sequence[str] = ()
    change: Sequence[str] = ()
    notes: Sequence[str] = ()


def pick_examples(task: TaskResult, count: int = 12) -> list[str]:
    """Ids of items to show, in the task's order: failures are at least a third, as far as there are any.

    Both kinds go round the expected answers, so that nobody chooses the pretty ones.
    """
    wrong = [item for item in task.items if not item.correct]
    right = [item for item in task.items if item.correct]
    count = min(count, len(task.items))
    share = round(count * len(wrong) / len(task.items)) if task.items else 0
    wanted = min(len(wrong), max(share, -(-count // 3), count - len(right)))
    chosen = {*_round(wrong, wanted), *_round(right, count - wanted)}
    return [item.id for item in task.items if item.id in chosen]


def _round(items: Sequence[ItemRecord], count: int) -> list[str]:
    """One item of every expected answer, then a second of each, and so on; of too many answers an even choice."""
    queues: dict[str, list[str]] = {}
    for item in items:
        queues.setdefault(item.expected, []).append(item.id)
    if 0 < count < len(queues):
        firsts = [queue[0] for queue in queues.values()]
        return [firsts[position * len(firsts) // count] for position in range(count)]
    longest = max(map(len, queues.values()), default=0)
    return [queue[turn] for turn in range(longest) for queue in queues.values() if turn < len(queue)][:count]
