"""The report and the model card of a run folder: everything they show is read from the folder or from its model."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from omniloom import __version__
from omniloom.checkpoint import load_model, seal
from omniloom.config import RunConfig, dump
from omniloom.data.engine import Engine
from omniloom.data.sources import open_source
from omniloom.eval.card import model_card
from omniloom.eval.judge import label_of
from omniloom.eval.report import write_report
from omniloom.eval.report_data import DataRow, Example, Licence, ReportData, pick_examples
from omniloom.eval.results import TaskResult, read_results
from omniloom.files import write_whole
from omniloom.media import load
from omniloom.model.graph import graph_of, mermaid
from omniloom.registry import BUILT_IN, find, split_spec
from omniloom.sequence import Item, Sample, Text

__all__ = ["report_data", "write_run_report"]


def write_run_report(
    run: str | Path, *, allow_code: bool = False, phases_s: Mapping[str, float] | None = None, notes: Sequence[str] = ()
) -> Path:
    """Write `report.html` and `README.md` (the model card) into a run folder; returns the report's path.

    `phases_s`: seconds of phases outside of the run, such as fetching data, put before its own. `notes`: limits of
    this run that the reader must know.

    Raises:
        CheckpointError: no trained run. DataError: no results where the run declares tasks; evaluate it first.
    """
    folder = Path(run)
    model, config = load_model(folder, allow_code=allow_code)
    data = report_data(Engine(model), config, folder, phases_s=phases_s or {}, notes=notes)
    report = write_report(folder / "report.html", data)
    write_whole(folder / "README.md", model_card(data))
    seal(folder)
    return report


def report_data(
    engine: Engine, config: RunConfig, folder: Path, *, phases_s: Mapping[str, float], notes: Sequence[str] = ()
) -> ReportData:
    """What a run folder and its model say of themselves."""
    results = read_results(folder / "eval" / "results.json") if config.evaluation else None
    metrics = _metrics(folder)
    nodes, edges = graph_of(engine.model, config)
    tasks = list(results.tasks.values()) if results is not None else []
    judged = {name for name, task in config.evaluation.items() if task.judge is not None}
    shown = [task for task in tasks if task.task in config.evaluation]
    return ReportData(
        name=config.name,
        run_yaml=dump(config),
        results=results,
        metrics=metrics,
        examples=[
            example for task in shown if task.task not in judged for example in _examples(engine, config, folder, task)
        ],
        generated=[
            example for task in shown if task.task in judged for example in _generated(engine, config, folder, task)
        ],
        stages=[stage.name for stage in config.stages],
        nodes=nodes,
        edges=edges,
        mermaid=mermaid(nodes, edges),
        phases_s={**phases_s, **_phases(folder, metrics)},
        memory_gb={"peak": max((record["mem_gb"] for record in metrics if "mem_gb" in record), default=0.0)},
        environment=_environment(config),
        data=list(_data(config, folder)),
        licences=list(_licences(config)),
        chat=_chat(engine, config, folder),
        change=[
            "the last projector of a modality: --set modalities.NAME.in.projector.1=qformer",
            "how long a stage trains: --set stages.align.steps=500",
            "your own data: a JSONL of conversations, a CSV of paths and answers, or a folder of classes under data:",
            "another language model: --set backbone.id=HUB/ID",
            "a new sensor: omniloom new modality NAME",
        ],
        notes=list(notes),
    )


def _metrics(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _phases(folder: Path, metrics: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds of every stage, from its last record, and of the evaluation of every task."""
    last: dict[str, float] = {}
    for record in metrics:
        if "elapsed_s" in record:
            last[record["stage"]] = record["elapsed_s"]
    phases: dict[str, float] = {}
    before: dict[str, float] = {}
    for name, until in last.items():
        stage = name.partition("/")[0]
        # Every stage's clock goes on where the stage before it stopped.
        phases[f"train {name}"] = until - max(before.values(), default=0.0)
        before[stage] = until
    evaluated = folder / "eval" / "phases.json"
    if evaluated.is_file():
        phases |= {f"evaluate {name}": seconds for name, seconds in json.loads(evaluated.read_text()).items()}
    return phases


def _samples(
    engine: Engine, config: RunConfig, folder: Path, task: TaskResult, count: int
) -> Iterator[tuple[Sample, Any]]:
    """Prepared samples of the items to show, each with its record."""
    source = open_source(config.data[config.evaluation[task.task].data], folder)
    records = {item.id: item for item in task.items}
    wanted = set(pick_examples(task, count))
    for index in range(len(source)):
        if not wanted:
            return
        sample = source[index]
        if sample.id in wanted and records[sample.id].reason is None:
            wanted.discard(sample.id)
            yield engine.pipeline.prepare(sample, root=source.media_root, as_codes=False), records[sample.id]


def _examples(engine: Engine, config: RunConfig, folder: Path, task: TaskResult) -> Iterator[Example]:
    for sample, record in _samples(engine, config, folder, task, 12):
        parts = [part for turn in sample.prompt().turns for part in turn.parts]
        said = [("text", record.answer or "")]
        yield Example(
            task.task, [_part(part) for part in parts], record.expected, said, record.correct, record.id, record.reason
        )


def _generated(engine: Engine, config: RunConfig, folder: Path, task: TaskResult) -> Iterator[Example]:
    """What the model generated when it was evaluated, and what the judge said of it."""
    numbers = {item.id: number for number, item in enumerate(task.items)}
    for sample, record in _samples(engine, config, folder, task, 20):
        parts = [_part(part) for turn in sample.prompt().turns for part in turn.parts]
        made = sorted((folder / "eval" / "items" / task.task).glob(f"{numbers[record.id]:05d}.*"))
        said = [
            (task.task, load(path, engine.model.rows[modality].payload_kind))
            for path in made
            for modality in sample.modalities
        ]
        yield Example(task.task, parts, label_of(sample), said, record.correct, record.id)


def _part(part: Text | Item) -> tuple[str, Any]:
    return ("text", part.text) if isinstance(part, Text) else (part.modality, part.payload)


def _environment(config: RunConfig) -> dict[str, str]:
    return {
        "omniloom": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "threads": str(config.threads or torch.get_num_threads()),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "seed": str(config.seed),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if sys.platform == "linux" and info.is_file():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        if names:
            return names[0]
    return platform.processor() or "unknown"


def _data(config: RunConfig, folder: Path) -> Iterator[DataRow]:
    digests = json.loads((folder / "data.json").read_text()) if (folder / "data.json").is_file() else {}
    trained = {name for stage in config.stages for name in stage.data}
    for name in config.data:
        source = open_source(config.data[name], folder)
        first = source[0]
        grouped = "group of the record" if first.group is not None else ""
        sizes = {"train": len(source)} if name in trained else {"held_out": len(source)}
        yield DataRow(
            name, first.modalities or ("text",), **sizes, grouped_by=grouped, digest=digests.get(name, "")[:16]
        )


def _licences(config: RunConfig) -> Iterator[Licence]:
    """Terms of every packaged asset the run names, through whatever table its scheme belongs to."""
    references = {config.backbone.id, *(str(spec.get("path", "")) for spec in config.data.values())}
    for row in config.modalities.values():
        if row.in_ is not None:
            for spec in (row.in_.encoder, row.in_.processor):
                references.add(
                    str(split_spec(spec, where="a part")[1].get("id", "")) if "component" not in spec else ""
                )
    for reference in sorted(references):
        scheme, colon, name = reference.partition(":")
        if colon and scheme in BUILT_IN["licences"]:
            yield Licence(*find("licences", scheme)(name))


def _chat(engine: Engine, config: RunConfig, folder: Path) -> list[str]:
    inputs = [name for name, row in engine.model.rows.items() if row.input is not None]
    flags = " ".join(f"--{name} FILE" for name in inputs[:2])
    return [f"omniloom chat {folder}", f'omniloom chat {folder} {flags} -p "What is this?" --json']
