"""Splits by group, so that no subject, voice or source file is on both sides."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping

from omniloom.errors import ConfigError
from omniloom.sequence import Sample

__all__ = ["split_by_group"]


def split_by_group(samples: Iterable[Sample], shares: Mapping[str, float], seed: int) -> dict[str, list[int]]:
    """Indices of the samples of each split, in order; samples of one group stay together.

    A sample without a group is a group of its own id. Groups are taken largest first, in an order that depends on
    `seed` and their names alone, and each goes to the split that lacks most of its share.

    Args:
        samples: any number of samples.
        shares: split -> share of the samples; shares sum to 1.
    Raises:
        ConfigError: shares are negative or do not sum to 1.
    """
    if not shares or min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise ConfigError(f"the shares of a split must not be negative and sum to 1, got {dict(shares)}.")
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    count = 0
    for index, sample in enumerate(samples):
        groups[("id", sample.id) if sample.group is None else ("group", sample.group)].append(index)
        count += 1
    order = sorted(groups, key=lambda group: (-len(groups[group]), _draw(seed, group)))
    taken: dict[str, list[int]] = {name: [] for name in shares}
    for group in order:
        name = max(shares, key=lambda split: shares[split] * count - len(taken[split]))
        taken[name] += groups[group]
    return {name: sorted(indices) for name, indices in taken.items()}


def _draw(seed: int, group: tuple[str, str]) -> bytes:
    return hashlib.sha256(f"{seed}\0{group[0]}\0{group[1]}".encode()).digest()
