"""The order of rows of several timed items of one clip: what was seen and heard together stands together.

Source: chunks of time, Qwen2.5-Omni (arXiv:2503.20215) 2 s, MiniCPM-o's time-division multiplexing 1 s, OmniVinci's
temporal grouping (arXiv:2510.15870); even insertion, AVicuna (arXiv:2403.16276).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from omniloom.errors import ConfigError, PlanError

__all__ = ["Chunks", "Even", "InOrder", "Interleaving", "Strand", "Stretch"]


@dataclass(frozen=True)
class Strand:
    """One item of a clip: how many rows it has, and when each begins on the clip's clock; None without a clock."""

    rows: int
    times_s: Sequence[float] | None


@dataclass(frozen=True)
class Stretch:
    """Rows `first` up to `stop` of strand `strand`."""

    strand: int
    first: int
    stop: int


class Interleaving(ABC):
    """Strands of one clip, in the order given -> stretches that hold every row once, each strand's in order."""

    @abstractmethod
    def order(self, strands: Sequence[Strand]) -> list[Stretch]:
        """The stretches in reading order.

        Raises:
            PlanError: strands that this order cannot place.
        """


class InOrder(Interleaving):
    """One item after another."""

    def order(self, strands: Sequence[Strand]) -> list[Stretch]:
        """A stretch for each strand."""
        return [Stretch(index, 0, strand.rows) for index, strand in enumerate(strands)]


class Chunks(Interleaving):
    """Chunks of `every_s` seconds; in each the strands follow one another in the order given."""

    def __init__(self, *, every_s: float = 2.0) -> None:
        if not every_s > 0:
            raise ConfigError(f"chunks of every_s={every_s}; expected seconds above zero.")
        self.every_s = every_s

    def order(self, strands: Sequence[Strand]) -> list[Stretch]:
        """Stretches by (chunk, strand)."""
        places: dict[int, list[Stretch]] = {}
        for index, strand in enumerate(strands):
            if strand.times_s is None:
                raise PlanError(
                    f"item {index} of a clip has rows without times, so it cannot be put into chunks of "
                    f"{self.every_s:g} s. Give its processor a rate, or set interleave: in_order."
                )
            chunks = [math.floor(time / self.every_s + 1e-6) for time in strand.times_s]
            first = 0
            for row in range(1, strand.rows + 1):
                if row == strand.rows or chunks[row] != chunks[first]:
                    places.setdefault(chunks[first], []).append(Stretch(index, first, row))
                    first = row
        return [stretch for chunk in sorted(places) for stretch in places[chunk]]


class Even(Interleaving):
    """The rows of later strands spread evenly among those of the first.

    Of n rows to insert among N, one follows every round(N / (n + 1)) rows; what is left stands at the end.
    """

    def order(self, strands: Sequence[Strand]) -> list[Stretch]:
        """The first strand in pieces, with rows of the others between them."""
        rows = [(0, row) for row in range(strands[0].rows)] if strands else []
        for index in range(1, len(strands)):
            rows = _inserted(rows, [(index, row) for row in range(strands[index].rows)])
        found: list[Stretch] = []
        for index, row in rows:
            if found and found[-1].strand == index and found[-1].stop == row:
                found[-1] = Stretch(index, found[-1].first, row + 1)
            else:
                found.append(Stretch(index, row, row + 1))
        return found


def _inserted(base: list[tuple[int, int]], added: list[tuple[int, int]]) -> list[tuple[int, int]]:
    every = max(1, round(len(base) / (len(added) + 1)))
    result: list[tuple[int, int]] = []
    waiting = iter(added)
    for place, row in enumerate(base, 1):
        result.append(row)
        if place % every == 0 and (following := next(waiting, None)) is not None:
            result.append(following)
    return [*result, *waiting]
