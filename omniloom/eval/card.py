"""The model card: a Markdown page beside the weights that says what the model is, what it was measured to do, and
under which terms its parts come. It is filled from the same data as the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from omniloom import __version__
from omniloom.eval.report import duration, summarise
from omniloom.eval.report_data import ReportData
from omniloom.eval.results import Probe, TaskResult
from omniloom.eval.tables import band, percent

__all__ = ["model_card"]


def model_card(data: ReportData) -> str:
    """The card as Markdown; equal data give equal text. Sections without content are left out."""
    created_by = data.results.created_by if data.results else f"omniloom {__version__}"
    sections = [f"# {_cell(data.name)}", data.summary or summarise(data), *_scores(data), *_parts(data), *_data(data)]
    if data.chat:
        sections += ["## Use", "```sh\n" + "\n".join(data.chat) + "\n```"]
    limits = [*data.notes, *_measured_limits(data)]
    if limits:
        sections += ["## Limits", "\n".join(f"- {_cell(limit)}" for limit in limits)]
    if data.licences:
        rows = [[row.name, row.what, row.licence, row.source] for row in data.licences]
        sections += [
            "## Licences",
            "The weights derive from these parts; their terms hold for what is passed on.",
            _table(["part", "what it is", "licence", "source"], rows),
        ]
    if data.environment:
        sections += ["## Environment", _table(["", ""], [[name, value] for name, value in data.environment.items()])]
    digest = f", run `{data.results.run_digest}`" if data.results and data.results.run_digest else ""
    sections.append(f"Made by {created_by}{digest}.")
    return "\n\n".join(section for section in sections if section) + "\n"


def _scores(data: ReportData) -> Iterator[str]:
    if not data.results or not data.results.tasks:
        return
    yield "## Scores"
    yield (
        "Accuracy of freely generated answers on held-out items, with its 95 % Wilson interval. *Chance* is what "
        "guessing gives with its exact 99 % band, *blind* the score without media, *shuffled* with media of another "
        "answer."
    )
    header = ["task", "modalities", "n", "accuracy", "95 %", "chance", "99 % band", "blind", "shuffled"]
    yield _table(header, [_score_row(task) for task in data.results.tasks.values()])


def _score_row(task: TaskResult) -> list[str]:
    return [
        task.task,
        ", ".join(task.modalities) or "text",
        str(task.n),
        percent(task.score),
        band(task.interval95),
        percent(task.chance.value),
        band(task.chance.band99),
        _probe(task.blind),
        _probe(task.shuffled),
    ]


def _parts(data: ReportData) -> Iterator[str]:
    rows = [
        [node.label, node.kind, node.lane or "shared", f"{node.parameters:,}", ", ".join(node.trained) or "frozen"]
        for node in data.nodes
        if node.parameters
    ]
    if rows:
        yield "## Parts"
        yield _table(["part", "kind", "modality", "parameters", "trained in"], rows)
    if data.phases_s:
        yield f"Time in all: {duration(sum(data.phases_s.values()))}."


def _data(data: ReportData) -> Iterator[str]:
    if data.data:
        yield "## Data"
        rows = [
            [
                row.name,
                ", ".join(row.modalities),
                "–" if row.train is None else str(row.train),
                "–" if row.held_out is None else str(row.held_out),
                row.grouped_by or "–",
                row.digest[:16] or "–",
            ]
            for row in data.data
        ]
        yield _table(["data", "modalities", "train", "held out", "kept apart by", "digest"], rows)


def _measured_limits(data: ReportData) -> Iterator[str]:
    """What the numbers themselves say against the model."""
    for task in data.results.tasks.values() if data.results else ():
        if not task.above_chance:
            yield f"{task.task}: the accuracy is not above what guessing gives; do not rely on it."
        if task.unparsable:
            yield f"{task.task}: {task.unparsable} of {task.n} answers could not be read."
        if task.failed:
            yield f"{task.task}: {task.failed} of {task.n} items failed and count as wrong."


def _probe(probe: Probe | None) -> str:
    return "–" if probe is None else percent(probe.score)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Text that cannot leave its cell or become markup."""
    flat = " ".join(str(text).split())
    return flat.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
