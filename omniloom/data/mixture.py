"""Which samples stand in which batch, as a pure function of (seed, stage, step).

There is no state to save, so a resumed run sees exactly the batches it would have seen. Each source is walked in a new
seeded order every epoch: after n draws of a source every one of its samples has been drawn floor or ceil of n / size
times. In every batch each source has its share of the places, rounded down or up; what rounding leaves over goes to the
sources that have waited longest, so that the shares hold over the run too.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import lcm
from typing import Any

from omniloom.errors import ConfigError, DataError, did_you_mean

__all__ = ["Mixture"]


class Mixture:
    """Batches drawn from several sources.

    Args:
        sources: name -> anything sized.
        weights: name -> weight of that source; a source without a weight, or with 0, is never drawn.
        seed: of the run.
        batch: samples a batch.
    Raises:
        ConfigError: a weight of no source, a negative one, or none above 0.
        DataError: a source with a weight is empty.
    """

    def __init__(
        self, sources: Mapping[str, Sequence[Any]], weights: Mapping[str, float], *, seed: int, batch: int
    ) -> None:
        for name, weight in weights.items():
            if name not in sources:
                raise ConfigError(
                    f"the mixture gives a weight to the unknown source {name!r}.{did_you_mean(name, sources)}"
                )
            if not 0 <= weight < float("inf"):
                raise ConfigError(f"the weight of source {name!r} must be 0 or more, got {weight}.")
        names = [name for name in sources if weights.get(name, 0) > 0]
        if not names or batch < 1:
            raise ConfigError(
                f"a mixture needs a positive weight and a batch of 1 or more, got {dict(weights)} and {batch}."
            )
        for name in names:
            if len(sources[name]) == 0:
                raise DataError(f"the source {name!r} has a weight but holds no sample.")
        self.seed, self.batch = seed, batch
        self.sizes = {name: len(sources[name]) for name in names}
        self._shares = _Shares([Fraction(str(float(weights[name]))) for name in names], batch)
        self._orders: dict[str, tuple[tuple[str, int], array[int]]] = {}

    def __call__(self, stage: str, step: int) -> list[tuple[str, int]]:
        """(source, index) of every sample of the batch of a step, from 0; sources in their order."""
        if step < 0:
            raise ConfigError(f"steps count from 0, got {step}.")
        before, after = self._shares.drawn(step), self._shares.drawn(step + 1)
        return [
            (name, self._index(stage, name, draw))
            for place, name in enumerate(self.sizes)
            for draw in range(before[place], after[place])
        ]

    def drawn(self, steps: int) -> dict[str, int]:
        """Samples of every source in the first `steps` batches."""
        return dict(zip(self.sizes, self._shares.drawn(steps), strict=True))

    def epochs(self, steps: int) -> dict[str, float]:
        """How often every source is walked in the first `steps` batches."""
        return {name: count / self.sizes[name] for name, count in self.drawn(steps).items()}

    def _index(self, stage: str, name: str, draw: int) -> int:
        epoch, place = divmod(draw, self.sizes[name])
        key = (stage, epoch)
        if name not in self._orders or self._orders[name][0] != key:
            self._orders[name] = key, _order(self.sizes[name], f"{self.seed}\0{stage}\0{name}\0{epoch}")
        return self._orders[name][1][place]


def _order(size: int, text: str) -> array[int]:
    """A permutation of range(size) that depends on the text alone, on every machine and version of Python."""
    order = array("q", range(size))
    draws = random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest(), "big"))
    for last in range(size - 1, 0, -1):
        other = int(draws.random() * (last + 1))  # random() is promised to stay the same; shuffle() is not
        order[last], order[other] = order[other], order[last]
    return order


class _Shares:
    """How many places each source has had after so many batches, in whole numbers: no rounding accumulates."""

    def __init__(self, weights: list[Fraction], batch: int) -> None:
        quotas = [weight / sum(weights) * batch for weight in weights]
        self.whole = [int(quota) for quota in quotas]
        rest = [quota - whole for quota, whole in zip(quotas, self.whole, strict=True)]
        self.scale = lcm(*(value.denominator for value in rest))
        self.rest = [int(value * self.scale) for value in rest]
        self.extra = sum(self.rest) // self.scale
        self.credit = [0] * len(weights)
        self.table = array("q", [0] * len(weights))

    def drawn(self, steps: int) -> list[int]:
        width = len(self.whole)
        while len(self.table) // width <= steps:
            self._extend()
        return self.table[steps * width : (steps + 1) * width].tolist()

    def _extend(self) -> None:
        width = len(self.whole)
        last = self.table[-width:]
        self.credit = [credit + rest for credit, rest in zip(self.credit, self.rest, strict=True)]
        owed = sorted((place for place in range(width) if self.rest[place]), key=lambda place: -self.credit[place])
        counts = list(self.whole)
        for place in owed[: self.extra]:
            counts[place] += 1
            self.credit[place] -= self.scale
        self.table.extend(had + more for had, more in zip(last, counts, strict=True))
