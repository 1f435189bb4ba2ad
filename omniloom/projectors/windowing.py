"""Rows of items cut into windows of equal length, by their number or by their clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omniloom.errors import ConfigError, ShapeError
from omniloom.sequence import Shape

__all__ = ["Windows", "cut", "cut_lengths"]

_TICKS = 1_000_000  # a second in whole numbers: borders of windows of several lengths then meet exactly


@dataclass(frozen=True)
class Windows:
    """The windows of several items, in order of item and time; only those that have rows.

    `keys`: (item, number of the window in it). `counts`: rows of each window; `starts`: its first row, counted in its
    item. `per_item`: windows of each item. `order`: the packed rows in order of their windows, None where they already
    are.
    """

    keys: list[tuple[int, int]]
    counts: list[int]
    starts: list[int]
    per_item: list[int]
    order: list[int] | None


def cut_lengths(windows: Sequence[int], windows_s: Sequence[float] | None) -> list[int]:
    """Lengths of windows in rows, or in millionths of a second where `windows_s` gives them.

    Raises:
        ConfigError: none, one below one row or a thousandth of a second, or one that does not divide the longest.
    """
    lengths = list(windows) if windows_s is None else [round(seconds * _TICKS) for seconds in windows_s]
    if not lengths or min(lengths) < (1 if windows_s is None else _TICKS // 1000):
        raise ConfigError(f"windows need lengths of at least one row or 0.001 s, got {windows_s or windows}.")
    if any(max(lengths) % length for length in lengths):
        raise ConfigError(
            f"each window must divide the longest, got {windows_s or windows}. Take 1 and 10, not 3 and 10."
        )
    return lengths


def cut(shapes: Sequence[Shape], length: int, *, in_time: bool) -> Windows:
    """The windows of items of these shapes; `length` in rows, or in millionths of a second if `in_time`.

    Raises:
        ShapeError: windows in time and an item without times.
    """
    keys: list[tuple[int, int]] = []
    counts: list[int] = []
    starts: list[int] = []
    per_item: list[int] = []
    order: list[int] = []
    offset = 0
    for item, shape in enumerate(shapes):
        found = _rows_by_window(item, shape, length, in_time)
        for index, rows in found.items():
            keys.append((item, index))
            counts.append(len(rows))
            starts.append(rows[0])
            order.extend(offset + row for row in rows)
        per_item.append(len(found))
        offset += shape.len
    return Windows(keys, counts, starts, per_item, None if order == list(range(offset)) else order)


def _rows_by_window(item: int, shape: Shape, length: int, in_time: bool) -> dict[int, list[int]]:
    if not in_time:
        return {
            start // length: list(range(start, min(start + length, shape.len))) for start in range(0, shape.len, length)
        }
    if shape.times is None:
        raise ShapeError(
            f"item {item} has {shape.len} rows without times; windows in seconds need a clock. "
            "Cut by rows (`windows`), or take an encoder that gives times."
        )
    ticks = [round(time * _TICKS) for time in shape.times]
    found: dict[int, list[int]] = {}
    for row in sorted(range(shape.len), key=ticks.__getitem__):
        found.setdefault(ticks[row] // length, []).append(row)
    return found
