"""One recording as several items: a video its frames and its sound, long media their windows, all on one clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from omniloom.errors import DataError
from omniloom.media import Payload, Video
from omniloom.planner import ModalityRow
from omniloom.sequence import Item, Sample, Text, Turn

__all__ = ["aspects", "split_items"]


def split_items(sample: Sample, rows: Mapping[str, ModalityRow]) -> Sample:
    """The sample with every item of a modality that splits taken apart, and long items cut into windows.

    Items of one recording get the sample's id and its number there as `clip`, and their begin on its clock as `t0`.

    Raises:
        DataError: a recording without anything that one of the modalities reads.
    """
    if not any(row.split or (row.input is not None and row.input.windows) for row in rows.values()):
        return sample
    count = 0

    def parts_of(turn: Turn) -> Iterator[Text | Item]:
        nonlocal count
        for part in turn.parts:
            if not isinstance(part, Item) or not isinstance(part.payload, Payload) or part.is_output_of(turn):
                yield part
                continue
            count += 1
            yield from _split(part, rows, f"{sample.id}/{count}")

    return replace(sample, turns=tuple(replace(turn, parts=tuple(parts_of(turn))) for turn in sample.turns))


def aspects(payload: Payload) -> dict[str, Payload]:
    """What a recording holds, by kind of payload: a video its frames and, if there is any, its sound."""
    if not isinstance(payload, Video):
        return {payload.kind: payload}
    frames: dict[str, Payload] = {"video": Video(payload.frames, payload.times_s)}
    return frames if payload.audio is None else {**frames, "audio": payload.audio}


def _split(item: Item, rows: Mapping[str, ModalityRow], clip: str) -> Iterator[Item]:
    row = rows.get(item.modality)
    if row is None or not row.split:
        yield from _windows(item, rows, clip)
        return
    found = aspects(item.payload)
    kept = [name for name in row.split if rows[name].payload_kind in found]
    if not kept:
        kinds = ", ".join(sorted({rows[name].payload_kind for name in row.split}))
        raise DataError(
            f"an item of {item.modality!r} is split into {', '.join(row.split)}, which read {kinds}; it holds only "
            f"{', '.join(found)}."
        )
    for name in kept:
        payload = found[rows[name].payload_kind]
        clip_name = item.clip or clip
        yield from _windows(replace(item, modality=name, payload=payload, key=None, clip=clip_name), rows, clip_name)


def _windows(item: Item, rows: Mapping[str, ModalityRow], clip: str) -> Iterator[Item]:
    path = rows[item.modality].input if item.modality in rows else None
    pieces = path.processor.split(item.payload) if path is not None and path.windows else [item.payload]
    if len(pieces) == 1 or path is None:
        yield item
        return
    for piece, begin in zip(pieces, path.processor.begins_s(item.payload), strict=True):
        yield replace(item, payload=piece, key=None, t0=(item.t0 or 0.0) + begin, clip=item.clip or clip)
