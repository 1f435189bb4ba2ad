"""From the items of a plan to rows of the language model's width: encoded, projected, fused, each as planned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from omniloom.encoders.base import Encoder
from omniloom.errors import PlanError, ShapeError
from omniloom.interaction.base import Media
from omniloom.projectors import Context, Fuser, Projector
from omniloom.sequence import Auxiliary, Packed, Plan, PlannedItem, Projected, Raw, Shape

__all__ = ["FusedPath", "MediaPath", "added", "fuse", "gather", "kept", "make_late", "run_encoder"]


def added(losses: Mapping[str, Auxiliary], more: Mapping[str, Auxiliary]) -> dict[str, Auxiliary]:
    """Both; a part that ran twice, for two modalities that share it, adds both times."""
    return {**losses, **{name: losses[name] + loss if name in losses else loss for name, loss in more.items()}}


@dataclass(frozen=True)
class MediaPath:
    """An input's parts by component name: its encoder, then its projectors."""

    encoder: tuple[str, Encoder]
    chain: Sequence[tuple[str, Projector]]


@dataclass(frozen=True)
class FusedPath:
    """A fuser's parts by component name: the fuser, then the projectors behind it."""

    fuser: tuple[str, Fuser]
    chain: Sequence[tuple[str, Projector]]


@dataclass
class _Losses:
    """What parts add to the loss, by component and name; one part that runs twice adds both times."""

    found: dict[str, Auxiliary] = field(default_factory=dict)

    def take(self, component: str, packed: Packed) -> None:
        for name, loss in packed.losses.items():
            self.found = added(self.found, {f"{component}/{name}": loss})


def gather(
    modality: str,
    path: MediaPath,
    items: Sequence[PlannedItem],
    *,
    answers: Sequence[int],
    device: torch.device,
    embedding: Tensor,
    say: Callable[[str], Tensor],
) -> tuple[Media, dict[str, Auxiliary]]:
    """Items of one modality through their encoder and projectors; rows that do not stay are left out at the end.

    `answers`: for each item, how many labels its document bears.

    Raises:
        ShapeError: a part gave another number of rows than planned; splicing them would shift every later slot.
        PlanError: an item without anything to encode.
    """
    losses = _Losses()
    late = [item.late for item in items if item.late is not None]
    if late:
        if len(late) != len(items):
            raise PlanError(f"some items of {modality!r} were projected before they were planned, others were not.")
        projected = Packed.cat(late)
        for packed in late:
            losses.found = added(losses.found, packed.losses)
        return Media(items, projected, kept(items, projected)), losses.found
    encoded = _encoded(modality, path.encoder, items, device, losses)
    context = Context(modality, embedding, [item.instruction for item in items], say, answers)
    packed = _along(path.chain, encoded, context, losses, items, f"the projector of {modality!r}")
    return Media(items, encoded, kept(items, packed)), losses.found


def make_late(
    modality: str,
    path: MediaPath,
    raw: Raw | Packed,
    encoded: Shape,
    *,
    instruction: str,
    answer: int,
    device: torch.device,
    embedding: Tensor,
    say: Callable[[str], Tensor],
) -> Projected:
    """One item through its encoder, unless these are its rows, and its projectors, before anything is planned.

    `encoded`: the shape of its rows after the encoder, with the processor's times. `instruction`, `answer`: as in
    `Context`. What parts add to the loss goes with the rows.
    """
    component, encoder = path.encoder
    losses = _Losses()
    packed = raw if isinstance(raw, Packed) else run_encoder(modality, encoder, [raw.to(device)])
    losses.take(component, packed)
    packed = replace(packed, shapes=(encoded,))
    packed = _through(path.chain, packed, Context(modality, embedding, [instruction], say, [answer]), losses)
    return Projected(packed.x, packed.shapes, losses=losses.found)


def run_encoder(modality: str, encoder: Encoder, raws: Sequence[Raw]) -> Packed:
    """What the encoder makes of raw tensors of a modality.

    Raises:
        ShapeError: they are not as it takes them; it says of which modality.
    """
    try:
        return encoder(raws)
    except ShapeError as error:
        raise ShapeError(f"the encoder of {modality!r}: {error}") from error


def kept(items: Sequence[PlannedItem], packed: Packed) -> Packed:
    """The rows that stay under each item's slot budget."""
    if all(item.keep is None for item in items):
        return packed
    rows, shapes = [], []
    for item, row, shape in zip(items, packed.items(), packed.shapes, strict=True):
        if item.keep is not None:
            times = None if shape.times is None else tuple(shape.times[place] for place in item.keep)
            row, shape = row[list(item.keep)], replace(shape, len=len(item.keep), grid=None, times=times, mosaic=None)
        rows.append(row)
        shapes.append(shape)
    return Packed.of(rows, shapes)


def fuse(
    name: str,
    path: FusedPath,
    plan: Plan,
    media: Mapping[str, Media],
    *,
    embedding: Tensor,
    say: Callable[[str], Tensor],
) -> tuple[Media | None, dict[str, Auxiliary]]:
    """The fused items of one fuser, in the order of the plan; None where it only adds a loss.

    Raises:
        ShapeError: another number of rows than planned.
    """
    losses = _Losses()
    items = [item for item in plan.items if item.modality == name]
    place: dict[int, tuple[str, int]] = {}
    seen: dict[str, int] = {}
    for index, item in enumerate(plan.items):
        if item.role != "out" and item.modality in media:
            place[index] = (item.modality, seen.get(item.modality, 0))
            seen[item.modality] = place[index][1] + 1
    singles = {modality: given.projected.singles() for modality, given in media.items()}
    groups = []
    for item in items:
        found = {plan.items[part].modality: (plan.items[part], place[part]) for part in item.parts}
        groups.append({name: _timed(singles[name][number], part) for name, (part, (_, number)) in found.items()})
    context = Context(name, embedding, [item.instruction for item in items], say)
    component, fuser = path.fuser
    packed: Packed = fuser(groups, context)
    losses.take(component, packed)
    if not len(packed):
        return None, losses.found
    return Media(items, packed, _along(path.chain, packed, context, losses, items, f"the fuser {name!r}")), losses.found


def _along(
    chain: Sequence[tuple[str, Projector]],
    packed: Packed,
    context: Context,
    losses: _Losses,
    items: Sequence[PlannedItem],
    what: str,
) -> Packed:
    """Rows through projectors, held at the end to what was planned of each item."""
    packed = _through(chain, packed, context, losses)
    for item, row in zip(items, packed.items(), strict=True):
        if row.shape[0] != item.rows:
            raise ShapeError(
                f"{what} gave {tuple(row.shape)} for sample {item.sample!r}; the plan expects {item.rows} rows. "
                "Its out_shape() and forward() disagree."
            )
    return packed


def _through(chain: Sequence[tuple[str, Projector]], packed: Packed, context: Context, losses: _Losses) -> Packed:
    for component, part in chain:
        packed = part(packed, context)
        losses.take(component, packed)
    return packed


def _timed(single: Packed, item: PlannedItem) -> Packed:
    """An item's rows with their times on the clock of its clip, as they were planned."""
    if item.shape is None or item.shape.times is None or single.shapes[0].times is None:
        return single
    times = item.shape.times if item.keep is None else tuple(item.shape.times[row] for row in item.keep)
    return replace(single, shapes=(replace(single.shapes[0], times=times),))


def _encoded(
    modality: str, path: tuple[str, Encoder], items: Sequence[PlannedItem], device: torch.device, losses: _Losses
) -> Packed:
    """Encoder rows of items: cached ones as they are, the others through the encoder, in order."""
    component, encoder = path
    fresh = [item.raw for item in items if item.features is None and item.raw is not None]
    if len(fresh) + sum(item.features is not None for item in items) != len(items):
        raise PlanError(f"an item of {modality!r} has neither a raw tensor nor cached rows.")
    trains = torch.is_grad_enabled() and any(value.requires_grad for value in encoder.parameters())
    made: list[Packed] = []
    if fresh:
        with torch.set_grad_enabled(trains):
            packed = run_encoder(modality, encoder, [raw.to(device) for raw in fresh])
        losses.take(component, packed)
        made = packed.singles()
    dtype = next((value.dtype for value in encoder.parameters()), torch.float32)
    following = iter(made)
    singles = [next(following) if item.features is None else _moved(item.features, device, dtype) for item in items]
    for item, single in zip(items, singles, strict=True):
        if item.encoded is None or len(single.x) != item.encoded.len:
            expected = None if item.encoded is None else item.encoded.len
            raise ShapeError(
                f"the encoder of {modality!r} gave {len(single.x)} rows for sample {item.sample!r}, "
                f"its out_shape() says {expected}."
            )
    whole = Packed.cat(singles)
    return replace(whole, shapes=tuple(item.encoded for item in items if item.encoded is not None))


def _moved(packed: Packed, device: torch.device, dtype: torch.dtype) -> Packed:
    return Packed(
        packed.x.to(device, dtype),
        packed.shapes,
        None if packed.pooled is None else packed.pooled.to(device, dtype),
        {layer: rows.to(device, dtype) for layer, rows in packed.taps.items()},
    )
