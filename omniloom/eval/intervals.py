"""How sure a score is: intervals of a proportion, the band chance alone would give, and paired comparison.

Everything is computed from first principles on the standard library and numpy; the tests compare with scipy.
Sources: Wilson 1927 (interval), Clopper and Pearson 1934 (exact binomial), McNemar 1947 (paired answers),
Holm 1979 (several tests at once), Miller 2024 (arXiv:2411.00640, clustered items in evaluations).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from omniloom.errors import DataError

__all__ = ["Interval", "McNemar", "chance_band", "cluster_bootstrap", "holm", "mcnemar", "wilson"]


class Interval(NamedTuple):
    """A closed interval of shares between 0 and 1."""

    low: float
    high: float


def wilson(correct: int, n: int, *, level: float = 0.95) -> Interval:
    """The Wilson score interval of `correct` right answers out of `n`; sane at 0 %, at 100 % and for small n.

    Raises:
        DataError: n is not positive, correct is outside 0..n, or the level is outside (0, 1).
    """
    _check_count(correct, n)
    _check_level(level)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = correct / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At the ends the bound is the end itself; the subtraction leaves a rounding error of 1e-17 there.
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    high = 1.0 if correct == n else min(1.0, centre + half)
    return Interval(low, high)


def chance_band(chance: float, n: int, *, level: float = 0.99) -> Interval:
    """The central band of scores that guessing with success probability `chance` gives on `n` items.

    Exact binomial quantiles: a score outside the band happens by chance in at most 1 - level of the runs.

    Raises:
        DataError: n is not positive, or chance or level is outside its range.
    """
    _check_count(0, n)
    _check_level(level)
    if not 0.0 <= chance <= 1.0:
        raise DataError(f"chance is {chance!r}; expected a share between 0 and 1.")
    tail = (1 - level) / 2
    return Interval(_binomial_quantile(tail, n, chance) / n, _binomial_quantile(1 - tail, n, chance) / n)


def cluster_bootstrap(
    values: Sequence[float],
    groups: Sequence[Hashable],
    *,
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> Interval:
    """Percentile interval of the mean of `values` when whole groups are drawn again, not single items.

    Items of one subject, voice or file are alike; an interval that ignores it is too narrow. It is degenerate
    where all values are equal (every resample gives the same mean), so the Wilson interval stays beside it.

    Raises:
        DataError: lengths differ, nothing is given, or there are fewer than two groups.
    """
    _check_level(level)
    if len(values) != len(groups):
        raise DataError(f"got {len(values)} values but {len(groups)} groups; expected one group per value.")
    names = list(dict.fromkeys(groups))
    if len(names) < 2:
        raise DataError(f"got {len(names)} groups; the spread between groups needs at least 2.")
    index = {name: position for position, name in enumerate(names)}
    member = np.array([index[group] for group in groups])
    sums = np.bincount(member, weights=np.asarray(values, dtype=np.float64), minlength=len(names))
    sizes = np.bincount(member, minlength=len(names))
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    means = (drawn @ sums) / (drawn @ sizes)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


@dataclass(frozen=True)
class McNemar:
    """Paired answers of two models. `only_a`, `only_b`: items that just one of them has right.

    `p` is the exact two-sided probability of a split at least as uneven under equal models; `mid_p` counts the
    observed split half, which is less conservative.
    """

    only_a: int
    only_b: int
    p: float
    mid_p: float


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> McNemar:
    """Exact McNemar test of two models' right and wrong answers to the same items, in the same order.

    Raises:
        DataError: the two differ in length.
    """
    if len(a) != len(b):
        raise DataError(f"got {len(a)} and {len(b)} answers; paired answers come from the same items.")
    only_a = sum(1 for x, y in zip(a, b, strict=True) if x and not y)
    only_b = sum(1 for x, y in zip(a, b, strict=True) if y and not x)
    n, few = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, k) for k in range(few + 1))
    # Integers divide exactly here; summing floating tails underflows to 0 for clear differences.
    p = min(1.0, 2 * tail / 2**n)
    mid_p = min(1.0, (2 * tail - math.comb(n, few)) / 2**n)
    return McNemar(only_a, only_b, p, mid_p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: what several tests together may claim at one level."""
    order = sorted(range(len(p_values)), key=lambda position: p_values[position])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, position in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = running
    return adjusted


def _binomial_quantile(q: float, n: int, p: float) -> int:
    """The smallest k with P(X <= k) >= q for X binomial(n, p)."""
    if p in (0.0, 1.0):
        return round(n * p)
    log_p, log_q = math.log(p), math.log1p(-p)
    total = 0.0
    for k in range(n + 1):
        log_ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        total += math.exp(log_ways + k * log_p + (n - k) * log_q)
        if total >= q:
            return k
    return n


def _check_count(correct: int, n: int) -> None:
    if n <= 0:
        raise DataError(f"n is {n}; an interval needs at least one item.")
    if not 0 <= correct <= n:
        raise DataError(f"correct is {correct}; expected a count between 0 and n = {n}.")


def _check_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise DataError(f"level is {level!r}; expected a share strictly between 0 and 1, such as 0.95.")
