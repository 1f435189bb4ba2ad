"""Probes of a task: the same prompts with media taken away or exchanged. What a score owes to them is the difference.

    blind     every media item removed
    shuffled  items exchanged with a sample of a different expected answer: a model that uses them drops below chance
    permuted  items exchanged with any other sample, whatever it expects: a model that uses them drops to chance
    alone     for samples of several modalities: the items of one modality kept, the others removed; one probe each

Sources: blind and unimodal baselines, OmniBench (arXiv:2409.15272); permuted media, the perceptual score
(arXiv:2110.14375).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from omniloom.sequence.sample import Item, Sample

__all__ = ["PROBES", "derange", "keep_items", "only", "swap_items", "without_media"]

PROBES: tuple[str, ...] = ("blind", "shuffled", "permuted", "alone")


def keep_items(sample: Sample, keep: Callable[[Item], bool]) -> Sample:
    """The sample with only the items that `keep` wants; text and turns stay."""
    turns = tuple(
        replace(turn, parts=tuple(part for part in turn.parts if not isinstance(part, Item) or keep(part)))
        for turn in sample.turns
    )
    return replace(sample, turns=turns)


def without_media(sample: Sample) -> Sample:
    """The sample with every item removed."""
    return keep_items(sample, lambda item: False)


def only(sample: Sample, modality: str) -> Sample:
    """The sample with the items of one modality."""
    return keep_items(sample, lambda item: item.modality == modality)


def swap_items(sample: Sample, donor: Sample) -> Sample:
    """The sample's text with the donor's items in the places of its own; both have the same modalities in order."""
    donated: Iterator[Item] = (item for _, item in donor.items())
    return sample.map_items(lambda turn, item: next(donated))


def signature(sample: Sample) -> tuple[str, ...]:
    """The modality of every item in reading order: samples of one signature can exchange items."""
    return tuple(item.modality for _, item in sample.items())


def derange(prompts: Sequence[Sample], labels: Sequence[Hashable], seed: int) -> list[int | None]:
    """For every prompt the position of its donor: another one of the same signature and a different label.

    Each donor gives once, except where one label holds more than half of a signature, which leaves too few others:
    there donors repeat. None: the prompt has no media, or nobody of its signature has another label. The same
    seed gives the same exchange.
    """
    donors: list[int | None] = [None] * len(prompts)
    by_signature: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for position, prompt in enumerate(prompts):
        if signature(prompt):
            by_signature[signature(prompt)].append(position)
    rng = np.random.default_rng(seed)
    for members in by_signature.values():
        commonest = max(Counter(labels[position] for position in members).values())
        if commonest == len(members):
            continue
        if 2 * commonest <= len(members):
            chosen = _exchange(members, labels, commonest, rng)
        else:
            chosen = {m: _pick([d for d in members if labels[d] != labels[m]], rng) for m in members}
        for position, donor in chosen.items():
            donors[position] = donor
    return donors


def _exchange(members: list[int], labels: Sequence[Hashable], shift: int, rng: np.random.Generator) -> dict[int, int]:
    """A one-to-one exchange without equal labels: sorted by label and shifted by the commonest label's count, no
    one meets its own label; random swaps that keep the law then remove the pattern of the shift."""
    order = [members[k] for k in rng.permutation(len(members))]
    rank = {label: position for position, label in enumerate(dict.fromkeys(labels[m] for m in order))}
    order.sort(key=lambda m: rank[labels[m]])
    donor = {m: order[(k + shift) % len(order)] for k, m in enumerate(order)}
    for a, b in rng.integers(len(order), size=(8 * len(order), 2)):
        x, y = order[a], order[b]
        if labels[donor[y]] != labels[x] and labels[donor[x]] != labels[y]:
            donor[x], donor[y] = donor[y], donor[x]
    return donor


def _pick(candidates: list[int], rng: np.random.Generator) -> int:
    return candidates[int(rng.integers(len(candidates)))]
