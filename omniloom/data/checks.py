"""What is wrong with data, found before any training: every record parsed, every medium looked at.

By default of each medium only the place, the size and the first bytes are looked at; `is_deep` decodes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omniloom.config import LoadedRun, ModalityConfig, Problem
from omniloom.data.records import modality_of
from omniloom.data.sources import Source, open_source
from omniloom.errors import ConfigError, DataError, MediaError, MissingAssetError, did_you_mean
from omniloom.media import KINDS, Limits, load
from omniloom.media.arrays import POINTS_FORMATS, SERIES_FORMATS
from omniloom.media.audio import AUDIO_FORMATS
from omniloom.media.formats import sniff
from omniloom.media.image import IMAGE_FORMATS
from omniloom.media.maps import MAP_FORMATS
from omniloom.media.video import VIDEO_FORMATS
from omniloom.sequence import Item, Sample, Turn

__all__ = ["SourceReport", "check_data", "check_source", "check_splits"]

_FORMATS: dict[str, tuple[str, ...]] = {
    "image": IMAGE_FORMATS,
    "audio": AUDIO_FORMATS,
    "video": VIDEO_FORMATS,
    "points": POINTS_FORMATS,
    "series": SERIES_FORMATS,
    "map": MAP_FORMATS,
}
_HEAD_BYTES = 4096


@dataclass
class SourceReport:
    """What one source holds, and what is wrong with it.

    `modalities`: items of each. `answers`: how often each last answer occurs, as text. `groups`, `media`: name or path
    -> the first record that holds it.
    """

    samples: int = 0
    modalities: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    groups: dict[str, tuple[str, int | None]] = field(default_factory=dict)
    media: dict[str, tuple[str, int | None]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def check_data(run: LoadedRun, *, is_deep: bool = False, limits: Limits | None = None) -> dict[str, SourceReport]:
    """Every source of a run checked, and what is trained on held against what is evaluated on.

    A source that cannot be opened has a report with that one problem, at its line of the run file.
    """
    reports: dict[str, SourceReport] = {}
    for name, spec in run.config.data.items():
        try:
            source = open_source(spec, run.base_folder)
        except (ConfigError, DataError, MissingAssetError) as error:
            node = run.tree.at(("data", name))
            reports[name] = SourceReport(problems=[Problem(node.file, node.line, f"data source {name!r}: {error}")])
            continue
        reports[name] = check_source(source, run.config.modalities, is_deep=is_deep, limits=limits)
    trained = {name for stage in run.config.stages for name, weight in stage.data.items() if weight > 0}
    tested = {task.data for task in run.config.evaluation.values()}
    for name in sorted(tested):
        for other in sorted(trained):
            if name in reports and other in reports:
                reports[name].problems += _straddling(name, reports[name], other, reports[other])
    return reports


def check_source(
    source: Source,
    modalities: Mapping[str, ModalityConfig],
    *,
    is_deep: bool = False,
    limits: Limits | None = None,
) -> SourceReport:
    """Every record of a source: parsed, its turns in order, its items of known modalities, its media readable."""
    report = SourceReport()
    ids: dict[str, tuple[str, int | None]] = {}
    for index in range(len(source)):
        place = source.where(index)
        try:
            sample = source[index]
        except DataError as error:
            report.problems.append(Problem(error.file, error.line, error.message))
            continue
        report.samples += 1
        messages = list(_wrong_turns(sample))
        if sample.id in ids:
            messages.append(f"the id {sample.id!r} occurs twice, first at {_at(ids[sample.id])}. Ids must differ.")
        ids.setdefault(sample.id, place)
        if sample.group is not None:
            report.groups.setdefault(sample.group, place)
        for turn, item in sample.items():
            modality = modality_of(item.modality, modalities)
            report.modalities[modality] += 1
            messages += _wrong_item(turn, item, modality, modalities)
            if modality in modalities and modalities[modality].payload in KINDS:
                media = _wrong_medium(
                    item, modalities[modality].payload, source.media_root, limits or Limits(), is_deep
                )
                messages += [f"item {modality!r}: {message}" for message in media]
            if isinstance(item.payload, Mapping) and isinstance(item.payload.get("path"), str):
                report.media.setdefault(str((source.media_root / item.payload["path"]).absolute()), place)
        answer = sample.answer()
        if answer is not None and answer.text.strip():
            report.answers[answer.text.strip()] += 1
        report.problems += [Problem(*place, message) for message in messages]
    return report


def check_splits(trained: Mapping[str, SourceReport], tested: Mapping[str, SourceReport]) -> list[Problem]:
    """Groups and media that are both trained on and tested on, at the first record of the tested source."""
    return [
        problem
        for name, report in tested.items()
        for other, other_report in trained.items()
        for problem in _straddling(name, report, other, other_report)
    ]


def _straddling(name: str, report: SourceReport, other: str, other_report: SourceReport) -> Iterator[Problem]:
    """Only sources with a modality in common can share a group: names of groups are each data set's own."""
    if name == other:
        place = next(iter(report.media.values()), (None, None))
        yield Problem(
            place[0], None, f"the source {name!r} is both trained on and evaluated on. Evaluate on held-out data."
        )
        return
    if not set(report.modalities) & set(other_report.modalities):
        return
    for what, mine, theirs in (
        ("group", report.groups, other_report.groups),
        ("medium", report.media, other_report.media),
    ):
        shared = [key for key in mine if key in theirs]
        if shared:
            key = shared[0]
            rest = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
            there = f"{other!r}, which is trained on, at {_at(theirs[key])}"
            message = f"the {what} {key!r}{rest} of {name!r} is also in {there}."
            yield Problem(*mine[key], message + " Split by group.")


def _wrong_turns(sample: Sample) -> Iterator[str]:
    roles = [turn.role for turn in sample.turns]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    expected = ["user" if index % 2 == 0 else "assistant" for index in range(len(spoken))]
    if spoken != expected:
        yield f"the roles are {', '.join(roles)}; expected an optional system message, then user and assistant in turn."
    elif not spoken or spoken[-1] != "assistant":
        yield "the last message is not the assistant's, so there is nothing to learn."
    for index, turn in enumerate(sample.turns):
        if turn.role != "system" and not turn.text.strip() and not any(isinstance(part, Item) for part in turn.parts):
            yield f"message {index} ({turn.role}) is empty."


def _wrong_item(turn: Turn, item: Item, modality: str, modalities: Mapping[str, ModalityConfig]) -> Iterator[str]:
    if modality not in modalities:
        yield f"the modality {modality!r} is not in the run.{did_you_mean(modality, modalities)}"
        return
    row = modalities[modality]
    is_out = item.is_output_of(turn)
    if is_out and row.out is None:
        yield f"the assistant gives an item {modality!r}, which the run has no `out` for."
    elif is_out and row.out is not None and row.out.codec is None:
        yield f"the assistant gives an item {modality!r}, which is made from text and cannot be learned. Give the text."
    elif not is_out and row.in_ is None and not row.split:
        yield f"the {turn.role} gives an item {modality!r}, which the run has no `in` for."


def _wrong_medium(item: Item, kind: str, root: Path, limits: Limits, is_deep: bool) -> Iterator[str]:
    path = item.payload.get("path") if isinstance(item.payload, Mapping) else None
    try:
        if is_deep or not isinstance(path, str):
            load(item.payload, kind, limits=limits, root=root, allow_absolute=False)
        else:
            _look(path, kind, root, limits)
    except MediaError as error:
        yield str(error)


def _look(path: str, kind: str, root: Path, limits: Limits) -> None:
    """Place, size and first bytes of a file.

    Raises:
        MediaError: as the gateway would, as far as can be told without decoding.
    """
    missing = MediaError("file_unreadable", f"there is no readable file {path!r} below {root}.")
    try:
        file = (root / path).resolve()
        if not file.is_relative_to(root.resolve()):
            raise MediaError("path_outside_root", f"{path!r} leaves the folder {root}. Keep media below the root.")
        if not file.is_file():
            raise missing
        limits.check_bytes(kind, file.stat().st_size)
        with file.open("rb") as opened:
            head = opened.read(_HEAD_BYTES)
    except (OSError, ValueError, RuntimeError):
        raise missing from None
    if not head:
        raise MediaError("empty_media", f"the file {path!r} holds no bytes.")
    accepted = _FORMATS.get(kind)
    found = sniff(head)
    if accepted is not None and found not in accepted:
        what = "of no known format" if found is None else f"{found!r} by its content"
        raise MediaError("unsupported_media_type", f"{path!r} is {what}; {kind} takes {', '.join(accepted)}.")


def _at(place: tuple[str | None, Any]) -> str:
    return f"{place[0]}:{place[1]}" if place[1] is not None else str(place[0])
