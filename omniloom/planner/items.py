"""Input items on their way into a plan: read, shaped, and grouped with those they are fused or interleaved with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from torch import Tensor

from omniloom.errors import PlanError
from omniloom.planner.interleave import Stretch
from omniloom.planner.paths import FuserRow, InputPath, ModalityRow
from omniloom.sequence import Bundle, Item, Packed, PlannedItem, Projected, Shape, Text

__all__ = ["Fusion", "Piece", "Ready", "clip_end", "fusions", "merged", "numbered", "read_item", "timed"]


@dataclass
class Ready:
    """An input item whose rows are counted. `shape`: after its projectors, times on its clip's clock; `keep`: which of
    its rows stay; `role`: as of a `PlannedItem`; `planned`: what is known of it, but for its place."""

    row: ModalityRow
    path: InputPath
    shape: Shape
    keep: tuple[int, ...] | None
    clip: str | None
    planned: PlannedItem
    role: str = "in"

    @property
    def rows(self) -> list[int]:
        """The rows that stay, in order."""
        return list(range(self.shape.len)) if self.keep is None else list(self.keep)

    @property
    def times_s(self) -> list[float] | None:
        """When each row that stays begins, on the clock of its clip."""
        return None if self.shape.times is None else [self.shape.times[row] for row in self.rows]


def read_item(item: Item, row: ModalityRow, sample: str, turn: int, instruction: str, rng: Any) -> Ready:
    """Read and shape an input item, with its processor unless that was done before.

    Raises:
        PlanError: the modality has no input, or the item exceeds its budget.
    """
    path = row.input
    if path is None:
        remedy = f"It is split into {', '.join(row.split)}: prepare the sample first." if row.split else ""
        raise PlanError(
            f"sample {sample!r} gives {row.name!r} as an input, but that modality has none. "
            + (remedy or "Give it an `in:`.")
        )
    raw = features = late = encoded = None
    if isinstance(item.payload, Projected):
        late, shape = item.payload, item.payload.shapes[0]
    else:
        if path.is_late:
            raise PlanError(
                f"sample {sample!r}: how many rows {row.name!r} gives is known only once they are made. "
                "Plan it through a Pipeline, which makes them first."
            )
        if isinstance(item.payload, Packed):
            features, encoded = item.payload, item.payload.shapes[0]
        else:
            is_raw = isinstance(item.payload, Tensor | Bundle)
            raw = item.payload if is_raw else path.processor(item.payload, rng)
            encoded = path.encoded(raw)
        shape = path.projected(encoded)
    keep = path.keep(shape.len, row.name)
    length = shape.len if keep is None else len(keep)
    if item.t0 and shape.times is not None:
        shape = replace(shape, times=tuple(item.t0 + time for time in shape.times))
    planned = PlannedItem(
        row.name,
        "in",
        sample,
        row=0,
        start=0,
        length=length,
        rows=shape.len,
        encoded=encoded,
        raw=raw,
        features=features,
        keep=keep,
        turn=turn,
        shape=shape,
        late=late,
        instruction=instruction,
    )
    role = "side" if path.insert == "inject" else "in"
    return Ready(row, path, shape, keep, item.clip, planned, role)


@dataclass
class Fusion:
    """One application of a fuser in a turn: the places of its parts among the turn's parts, in the fuser's order, and
    the place where its rows stand; `index`: its number among the document's items, once it is there."""

    fuser: FuserRow
    places: Sequence[int]
    anchor: int
    shape: Shape | None
    index: int = -1

    @property
    def rows(self) -> int:
        """How many rows it gives; none, where it only adds a loss."""
        return 0 if self.shape is None else self.shape.len

    @property
    def is_side(self) -> bool:
        """Whether its rows are read inside the layers and fill no slots."""
        return bool(self.rows) and self.fuser.insert == "inject"


def fusions(parts: Sequence[Any], fusers: Sequence[FuserRow]) -> list[Fusion]:
    """What fusers make of the items of one turn; the k-th items of each input belong together.

    Items that lose their slots get the role "source".
    """
    found = []
    for fuser in fusers:
        places: Mapping[str, list[int]] = {
            name: [at for at, part in enumerate(parts) if isinstance(part, Ready) and part.row.name == name]
            for name in fuser.inputs
        }
        counts = [len(ats) for ats in places.values()]
        for number in range(min(counts) if fuser.when == "all" else max(counts)):
            group = {name: ats[number] for name, ats in places.items() if number < len(ats)}
            shape = fuser.fused({name: _kept_shape(parts[at]) for name, at in group.items()})
            for name, at in group.items():
                if name not in fuser.keep and shape is not None:
                    parts[at].role = "source"
            anchor = max(group.values()) if fuser.insert == "last" else min(group.values())
            found.append(Fusion(fuser, list(group.values()), anchor, shape))
    return found


def _kept_shape(ready: Ready) -> Shape:
    """The shape of the rows that stay; their grid is lost where some do not."""
    if ready.keep is None:
        return ready.shape
    times = None if ready.shape.times is None else tuple(ready.shape.times[row] for row in ready.keep)
    return replace(ready.shape, len=len(ready.keep), grid=None, times=times, mosaic=None)


def clip_end(parts: Sequence[Any], at: int) -> int:
    """Where the run of neighbouring items of one clip ends that begins at `at`."""
    stop, clip = at + 1, parts[at].clip
    while clip is not None and stop < len(parts) and isinstance(parts[stop], Ready) and parts[stop].clip == clip:
        stop += 1
    return stop


@dataclass(frozen=True)
class Piece:
    """Rows `first` up to `stop` of those that stay, and the text before them."""

    first: int
    stop: int
    text: str = ""


def timed(ready: Ready, stretch: Stretch) -> Iterator[Piece]:
    """A stretch of an item, cut where its timestamps stand."""
    form, times = ready.path.timestamps, ready.times_s
    if form is None:
        yield Piece(stretch.first, stretch.stop)
        return
    if times is None:
        raise PlanError(
            f"{ready.row.name!r} has timestamps, but its rows have no times. Give its processor a rate, or a projector "
            "that keeps times."
        )
    cuts = [stretch.first]
    for row in range(stretch.first + 1, stretch.stop):
        if times[row] > times[cuts[-1]] and times[row] - times[cuts[-1]] >= ready.path.timestamps_every_s - 1e-6:
            cuts.append(row)
    for first, stop in pairwise([*cuts, stretch.stop]):
        yield Piece(first, stop, form.format(times[first]))


def merged(parts: Sequence[Text | Item]) -> list[Text | Item]:
    """Neighbouring texts of one kind as one span, so that a border in a file is none in the tokens."""
    found: list[Text | Item] = []
    for part in parts:
        last = found[-1] if found else None
        if isinstance(part, Text) and isinstance(last, Text) and (part.learn, part.weight) == (last.learn, last.weight):
            found[-1] = replace(last, text=last.text + part.text)
        else:
            found.append(part)
    return found


def numbered(marker: str, modality: str, items: Sequence[PlannedItem], before: Sequence[Ready]) -> str:
    """A marker with the item's number among those of its modality, from 1, in the place of `{n}`; `items` of the
    document and those `before` it in its clip are counted."""
    if "{n}" not in marker:
        return marker
    known = [item.modality for item in items if item.role == "in"] + [ready.row.name for ready in before]
    return marker.replace("{n}", str(1 + known.count(modality)))
