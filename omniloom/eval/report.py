"""The report of a run: one HTML file that opens offline, in light and dark, on paper and on a narrow screen.

It holds no script and fetches nothing; media are data URIs and drawings. Whatever a model or a data set wrote is
escaped by the template engine, so an answer is never markup.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from omniloom import __version__
from omniloom.eval.graph_svg import count, draw_graph
from omniloom.eval.media_html import render_payload
from omniloom.eval.report_data import Part, ReportData
from omniloom.eval.results import Probe, TaskResult
from omniloom.eval.svg import COLOURS, curves, smooth
from omniloom.eval.tables import band, percent
from omniloom.files import write_whole

__all__ = ["duration", "render_report", "summarise", "write_report"]

LABELS = 14  # rows and columns of a confusion table; the rest is added up


def write_report(path: str | Path, data: ReportData) -> Path:
    """Write the report whole or not at all; the path."""
    write_whole(Path(path), render_report(data))
    return Path(path)


def render_report(data: ReportData) -> str:
    """The report as HTML text; equal data give equal text."""
    tasks = list(data.results.tasks.values()) if data.results else []
    stages = list(_stages(data.metrics))
    groups = list(_groups(data))
    labels = list(dict.fromkeys(label for task in tasks for label, probe in _probes(task).items() if probe is not None))
    created_by = data.results.created_by if data.results else f"omniloom {__version__}"
    digest = f" · run {data.results.run_digest[:16]}" if data.results and data.results.run_digest else ""
    return _template().render(
        data=data,
        css=Markup(_resource("report.css")),
        summary=data.summary or summarise(data),
        sections=list(_sections(data, bool(tasks), bool(stages), bool(groups))),
        tiles=list(_tiles(data, tasks)),
        tasks=tasks,
        confusions=[_confusion(task) for task in tasks],
        stages=stages,
        groups=groups,
        graph=draw_graph(data.nodes, data.edges, data.stages) if data.nodes else "",
        trained=_trained(data),
        phases=_meters(data.phases_s, duration, total=True),
        memory=_meters(data.memory_gb, lambda value: f"{value:.2f}", total=False),
        footer=f"Made by {created_by}{digest}. This page is one file and needs no network.",
        percent=lambda share: percent(share).replace(" ", "\u00a0"),
        band=lambda interval: band(interval).replace("-", "–"),
        probe_labels=labels,
        probes=lambda task: {**dict.fromkeys(labels), **_probes(task)},
        at=lambda share: f"{100 * share:.2f}%",
        span=lambda interval: f"left:{100 * interval.low:.2f}%;width:{100 * (interval.high - interval.low):.2f}%",
        render=render_payload,
        is_empty=_is_empty,
        has_media=lambda parts: any(kind != "text" for kind, _ in parts),
    )


def summarise(data: ReportData) -> str:
    """The report's paragraph where the run gives none: what was composed, how it scores, what it cost."""
    lanes = list(dict.fromkeys(node.lane for node in data.nodes if node.kind == "payload" and node.lane))
    sentences = []
    if lanes:
        size = count(sum(node.parameters for node in data.nodes))
        sentences.append(f"A language model that takes in {_listed(lanes)} beside text, {size} parameters in all.")
    tasks = list(data.results.tasks.values()) if data.results else []
    if tasks:
        above = [task for task in tasks if task.above_chance]
        least, most = min(task.score for task in tasks), max(task.score for task in tasks)
        spread = f"accuracies from {percent(least)} to {percent(most)}"
        named = f"{len(above)} of {len(tasks)} held-out tasks lie"
        sentences.append(f"{named} above what guessing gives, with {spread} in freely generated answers.")
    if data.phases_s:
        sentences.append(f"The run took {duration(sum(data.phases_s.values()))}.")
    return " ".join(sentences)


def duration(seconds: float) -> str:
    """75.2 -> "1 min 15 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _sections(data: ReportData, tasks: bool, stages: bool, groups: bool) -> Iterator[tuple[str, str]]:
    present = {
        "results": (tasks, "Results"),
        "learning": (stages, "Learning"),
        "examples": (groups, "Examples"),
        "generated": (bool(data.generated), "Generated"),
        "model": (bool(data.nodes), "Model"),
        "cost": (bool(data.phases_s or data.memory_gb), "Time and memory"),
        "next": (bool(data.chat or data.change), "What next"),
        "limits": (bool(data.notes), "Limits"),
        "data": (bool(data.data or data.licences), "Data and licences"),
        "environment": (bool(data.environment or data.run_yaml), "Environment"),
    }
    yield from ((key, title) for key, (is_there, title) in present.items() if is_there)


def _tiles(data: ReportData, tasks: list[TaskResult]) -> Iterator[tuple[str, str]]:
    if tasks:
        yield f"{sum(task.above_chance for task in tasks)} of {len(tasks)}", "tasks above chance (99 %)"
        yield str(sum(task.n for task in tasks)), "held-out items answered"
    inputs = {node.lane for node in data.nodes if node.kind == "payload"}
    if inputs:
        yield str(len(inputs)), "input modalities beside text"
    if data.nodes:
        trained = sum(max(node.trained.values(), default=0) for node in data.nodes)
        yield count(trained), f"of {count(sum(node.parameters for node in data.nodes))} parameters trained"
    if data.phases_s:
        yield duration(sum(data.phases_s.values())), "in all"
    if data.memory_gb:
        yield f"{max(data.memory_gb.values()):.1f} GB", "peak memory"


def _stages(records: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """One card per stage, from records {"stage", "step", "loss", "loss/SOURCE", "tokens_per_s", "elapsed_s", ...}; the
    clock of a stage goes on where the one before it stopped."""
    before = 0.0
    names = dict.fromkeys(record["stage"] for record in records if "stage" in record and "loss" in record)
    for position, name in enumerate(names):
        own = [record for record in records if record.get("stage") == name and "loss" in record]
        keys = list(dict.fromkeys(key for record in own for key in record if key.startswith("loss/")))
        series: dict[str, tuple[Sequence[float], Sequence[float]]] = {}
        for key in ["loss", *keys] if len(keys) != 1 else ["loss"]:
            points = [(float(record["step"]), float(record[key])) for record in own if record.get(key) is not None]
            points = [(step, loss) for step, loss in points if math.isfinite(loss)]
            if points:
                label = "all" if key == "loss" else key.removeprefix("loss/")
                series[label] = [step for step, _ in points], [loss for _, loss in points]
        if not series:
            continue
        colours = ["var(--ink)", *(f"var(--c{k % COLOURS})" for k in range(len(series)))]
        legend = [
            (label, colour, f"{float(smooth(ys)[-1]):.3g}")
            for (label, (_, ys)), colour in zip(series.items(), colours, strict=False)
        ]
        facts = [f"{len(own)} steps" if len(own) > 1 else "1 step"]
        if "elapsed_s" in own[-1]:
            until = float(own[-1]["elapsed_s"])
            facts.append(duration(until - before))
            before = until
        speeds = sorted(float(record["tokens_per_s"]) for record in own if "tokens_per_s" in record)
        if speeds:
            facts.append(f"{speeds[len(speeds) // 2]:,.0f} tokens/s")
        drawing = curves(series, f"training loss of stage {name}", f"clip{position}")
        yield {"name": name, "facts": ", ".join(facts), "drawing": drawing, "legend": legend}


def _groups(data: ReportData) -> Iterator[dict[str, Any]]:
    for task in dict.fromkeys(example.task for example in data.examples):
        own = [example for example in data.examples if example.task == task]
        facts = f"{len(own)} shown"
        result = data.results.tasks.get(task) if data.results else None
        if result:
            facts = f"{len(own)} of {result.n} shown; {result.correct} right, {result.n - result.correct} wrong in all"
        yield {"task": task, "examples": own, "facts": facts}


def _probes(task: TaskResult) -> dict[str, Probe | None]:
    return {
        "blind": task.blind,
        "shuffled": task.shuffled,
        "permuted": task.permuted,
        **{f"{modality} alone": probe for modality, probe in task.alone.items()},
    }


def _confusion(task: TaskResult) -> dict[str, Any]:
    """The most frequent labels as rows and columns; the others are added up, so that every item is in the table."""
    totals: dict[str, int] = {}
    for row in task.confusion.values():
        for answer, n in row.items():
            totals[answer] = totals.get(answer, 0) + n
    labels = sorted(task.confusion, key=lambda label: (-sum(task.confusion[label].values()), label))
    rows = sorted(labels[:LABELS])
    answers = sorted(totals, key=lambda answer: (answer not in rows, -totals[answer], answer))
    columns, others = answers[: LABELS + 4], set(answers[LABELS + 4 :])
    columns = [*sorted(columns, key=lambda answer: (answer not in rows, answer)), *(["(others)"] if others else [])]
    table: dict[str, dict[str, int]] = {label: {} for label in [*rows, *(["(others)"] if len(labels) > LABELS else [])]}
    for label, counts in task.confusion.items():
        target = table[label if label in rows else "(others)"]
        for answer, n in counts.items():
            column = "(others)" if answer in others else answer
            target[column] = target.get(column, 0) + n
    return {
        "columns": columns,
        "rows": [
            {
                "label": label,
                "cells": [
                    {
                        "n": counts.get(column, 0),
                        "hit": column == label,
                        "share": f"{0.08 + 0.5 * counts.get(column, 0) / max(1, sum(counts.values())):.2f}",
                    }
                    for column in columns
                ],
            }
            for label, counts in table.items()
        ],
    }


def _trained(data: ReportData) -> list[dict[str, Any]]:
    return [
        {
            "label": node.label,
            "lane": node.lane,
            "parameters": f"{node.parameters:,}",
            "cells": [f"{node.trained[stage]:,}" if stage in node.trained else "" for stage in data.stages],
        }
        for node in data.nodes
        if node.parameters
    ]


def _meters(values: Mapping[str, float], text: Any, *, total: bool) -> list[tuple[str, str, str]]:
    scale = (sum(values.values()) if total else max(values.values(), default=0.0)) or 1.0
    return [(name, f"{100 * value / scale:.1f}%", text(value)) for name, value in values.items()]


def _is_empty(parts: Sequence[Part]) -> bool:
    return all(kind == "text" and not str(part).strip() for kind, part in parts)


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _resource(name: str) -> str:
    return files("omniloom.eval").joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> jinja2.Template:
    engine = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return engine.from_string(_resource("report.html.tmpl"))
