"""The rules of a plan, and the proof that one keeps them: one that does not would train on wrong tokens, silently."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from omniloom.errors import PlanError
from omniloom.sequence.slots import IGNORE, Kind, PlannedItem

if TYPE_CHECKING:
    from omniloom.sequence.plan import Plan

__all__ = ["prove"]


def prove(plan: Plan) -> None:
    """Hold a plan to its rules.

    Raises:
        PlanError: says the first rule that is broken, and where.
    """
    real = ~plan.is_padding
    if bool((real[:, 1:] & ~real[:, :-1]).any()) or bool((real != (plan.document >= 0)).any()):
        raise PlanError("padding stands before the end of a row; documents must come first.")
    _prove_items(plan)
    together = _prove_documents(plan, real)
    _prove_labels(plan, real, together)
    _prove_spans(plan, together)
    _prove_streams(plan, together)


def _prove_items(plan: Plan) -> None:
    """Every item fills its own slots, every slot of media has an item; source rows and routes follow from both."""
    media = plan.kind == int(Kind.MEDIA)
    covered = torch.zeros_like(media)
    for index, item in enumerate(plan.items):
        _prove_item(plan, index, item)
        if item.role == "in":
            covered[item.row] |= plan.item[item.row] == index
    if bool((media != covered).any()):
        raise PlanError(f"{int((media != covered).sum())} slots await rows that no item gives, or rows await slots.")
    if not torch.equal(plan.with_sources().source, plan.source):
        raise PlanError("source rows are not those of the items in order. Rebuild the plan; do not edit its slots.")
    has_route = media | (plan.kind == int(Kind.CODE))
    if not torch.equal(plan.route, torch.where(has_route, plan.modality + 1, 0)):
        raise PlanError("a slot has another route than its modality's. Rebuild the plan; do not edit its slots.")


def _prove_item(plan: Plan, index: int, item: PlannedItem) -> None:
    rows, length = plan.shape
    if not 0 <= item.row < rows or item.start < 0 or item.start + item.length > length:
        raise PlanError(f"item {index} ({item.modality}) lies outside the plan of {rows} x {length} slots.")
    of_item = plan.item == index
    slots = plan.slots_of(index)
    if int(of_item.sum()) != item.length or len(slots) != item.length or (item.length and int(slots[0]) != item.start):
        raise PlanError(
            f"item {index} ({item.modality}) has {item.length} rows but its run of slots has {int(of_item.sum())}, "
            "or lies elsewhere. Rebuild the plan after changing a part."
        )
    number = plan.modalities.index(item.modality) if item.modality in plan.modalities else None
    if number is None or bool((plan.modality[item.row, slots] != number).any()):
        raise PlanError(f"item {index} is of modality {item.modality!r}, its slots are of another.")
    if item.role in ("side", "source") and item.length:
        raise PlanError(f"item {index} ({item.modality}) is a {item.role} item, yet it fills {item.length} slots.")
    if item.role == "in":
        given = item.rows if item.keep is None else len(item.keep)
        if given != item.length or (item.keep is not None and max(item.keep) >= item.rows):
            raise PlanError(
                f"item {index} ({item.modality}) gives {given} of {item.rows} rows for {item.length} slots."
            )
    for part in item.parts:
        if not 0 <= part < len(plan.items) or plan.items[part].row != item.row:
            raise PlanError(f"item {index} ({item.modality}) is fused from item {part}, which is not in its row.")


def _prove_documents(plan: Plan, real: Tensor) -> Tensor:
    """Documents are of one piece each, and positions count from 0 in them.

    Returns (B, L) bool, True where the next slot is of the same document.
    """
    end = torch.zeros_like(real[:, :1])
    together = torch.cat([plan.document[:, 1:] == plan.document[:, :-1], end], 1) & real
    pieces = plan.document[real & ~together]
    if not torch.equal(pieces.sort().values, torch.arange(len(pieces), device=pieces.device)):
        raise PlanError("a document is in several pieces, or documents are not numbered from 0.")
    starts = real & torch.cat([~end, ~together[:, :-1]], 1)
    if bool((plan.position[:, starts] != 0).any()):
        raise PlanError("positions must restart at 0 in every document.")
    # One axis counts slots. Several axes (time, height, width) go back and forth inside an item.
    if plan.position.shape[0] == 1:
        steps = plan.position[0, :, 1:] - plan.position[0, :, :-1]
        if bool((steps[together[:, :-1]] != 1).any()):
            raise PlanError("positions must count the slots of a document, one by one.")
    return together


def _prove_labels(plan: Plan, real: Tensor, together: Tensor) -> None:
    """A label is the id of the next slot of its own document, which holds a token; only labels have weights."""
    learned = plan.label != IGNORE
    if bool(learned[:, -1:].any()) or bool((learned & ~real).any()):
        raise PlanError("a label stands on padding or on the last slot of a row, where nothing follows.")
    following, kinds = (torch.cat([values[:, 1:], values[:, :1]], 1) for values in (plan.ids, plan.kind))
    wrong = learned & ((plan.label != following) | ~together | (kinds == int(Kind.MEDIA)))
    if bool(wrong.any()):
        row, slot = (int(value) for value in wrong.nonzero()[0])
        raise PlanError(
            f"row {row}, slot {slot}: the label {int(plan.label[row, slot])} is not the token that follows it."
        )
    if bool(((plan.weight != 0) & ~learned).any()):
        raise PlanError("a slot without a label has a weight.")


def _prove_spans(plan: Plan, together: Tensor) -> None:
    """A span lies in one piece of one document, and no label stands in it: a slot there has seen what it must give."""
    inside = plan.span >= 0
    same = torch.cat([plan.span[:, 1:] == plan.span[:, :-1], torch.zeros_like(inside[:, :1])], 1) & together
    for row in range(plan.shape[0]):
        ends = [(int(plan.document[row, slot]), int(plan.span[row, slot])) for slot in (inside & ~same)[row].nonzero()]
        if len(set(ends)) != len(ends):
            raise PlanError(f"row {row}: a span of slots that see each other is in several pieces.")
    labelled = inside & same & (plan.label != IGNORE)
    if bool(labelled.any()):
        raise PlanError("a label stands inside a span whose slots see each other: its answer would be visible.")


def _prove_streams(plan: Plan, together: Tensor) -> None:
    """What an encoder reads of a document stands before what its decoder says, and bears no labels."""
    back = (plan.stream[:, :-1] == 0) & (plan.stream[:, 1:] == 1) & together[:, :-1]
    if bool(back.any()):
        row, slot = (int(value) for value in back.nonzero()[0])
        raise PlanError(f"row {row}, slot {slot + 1}: the encoder reads a slot behind what the decoder says.")
    if bool(((plan.stream == 1) & (plan.label != IGNORE)).any()):
        raise PlanError("a label stands on a slot of the encoder, which predicts nothing.")
