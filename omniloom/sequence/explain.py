"""A plan as a table for people: what stands in which slots, where it comes from and what is learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from omniloom.sequence.slots import IGNORE, Kind

if TYPE_CHECKING:
    from omniloom.sequence.plan import Plan

__all__ = ["explain"]


def explain(plan: Plan, decode: Callable[[list[int]], str] | None) -> str:
    """The plan as a table, one line per run of slots that belong together.

    `decode` turns the ids of a run of text into text; without it the ids are shown. With two streams the side is told:
    "enc" what the encoder reads, "dec" what the decoder says.
    """
    sides = "side " if bool((plan.stream == 1).any()) else ""
    lines = [
        f"{'row':>3} {'doc':>3} {'slots':>11} {sides}{'kind':<6} {'modality':<10} {'item':>4} {'source':>9} "
        f"{'position':>11} {'learned':>7}  content"
    ]
    for row in range(plan.shape[0]):
        start = 0
        used = int(plan.lengths[row])
        while start < used:
            end = start + 1
            while end < used and _same_run(plan, row, start, end):
                end += 1
            lines.append(_explain_run(plan, row, start, end, decode, has_sides=bool(sides)))
            start = end
        if used < plan.shape[1]:
            lines.append(f"{row:>3} {'':>3} {f'{used}..{plan.shape[1] - 1}':>11} PAD")
    lines.append(
        f"{plan.shape[0]} x {plan.shape[1]} slots, {int(plan.is_padding.sum())} padding, {plan.supervised} labels, "
        f"{len(plan.items)} items, {plan.truncated} segments truncated"
    )
    return "\n".join(lines)


def _same_run(plan: Plan, row: int, start: int, slot: int) -> bool:
    keys = (plan.kind, plan.item, plan.document, plan.segment)
    same = all(bool(key[row, start] == key[row, slot]) for key in keys)
    return same and bool((plan.label[row, start] != IGNORE) == (plan.label[row, slot] != IGNORE))


def _explain_run(
    plan: Plan, row: int, start: int, end: int, decode: Callable[[list[int]], str] | None, *, has_sides: bool
) -> str:
    kind = Kind(int(plan.kind[row, start]))
    modality, item, source = (int(values[row, start]) for values in (plan.modality, plan.item, plan.source))
    ids = plan.ids[row, start:end].tolist()
    text = decode(ids) if decode is not None and kind in (Kind.TEXT, Kind.MARKER) else str(ids)
    position = plan.position[0, row]
    learned = int((plan.label[row, start:end] != IGNORE).sum())
    side = ("dec  ", "enc  ")[int(plan.stream[row, start])] if has_sides else ""
    return (
        f"{row:>3} {int(plan.document[row, start]):>3} {f'{start}..{end - 1}':>11} {side}{kind.name:<6} "
        f"{plan.modalities[modality] if modality >= 0 else '':<10} {item if item >= 0 else '':>4} "
        f"{f'{source}..{source + end - start - 1}' if source >= 0 else '':>9} "
        f"{f'{int(position[start])}..{int(position[end - 1])}':>11} {learned or '':>7}  "
        f"{'' if kind is Kind.MEDIA else repr(text) if decode is not None else text}"
    )
