"""Items of different sizes in one batch: pad with a mask, or group the ones of equal shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["by_shape", "halved", "in_stacks", "pad_rows"]

_T = TypeVar("_T")


def by_shape(tensors: Sequence[Tensor]) -> Iterator[tuple[list[int], Tensor]]:
    """(indices, stacked tensors) for each shape that occurs, in order of first occurrence."""
    groups: dict[torch.Size, list[int]] = {}
    for index, tensor in enumerate(tensors):
        groups.setdefault(tensor.shape, []).append(index)
    for indices in groups.values():
        yield indices, torch.stack([tensors[index] for index in indices])


def in_stacks(tensors: Sequence[Tensor], change: Callable[[Tensor], Iterable[_T]]) -> list[_T]:
    """What `change` makes of each tensor, in their order: it gets (B, ...) stacks of equal shape, gives B results."""
    found: dict[int, _T] = {}
    for indices, batch in by_shape(tensors):
        found.update(zip(indices, change(batch), strict=True))
    return [found[index] for index in range(len(tensors))]


def pad_rows(tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """(L_i, ...) tensors to (B, longest, ...), zero behind an item's end, and the (B,) lengths."""
    lengths = torch.tensor([tensor.shape[0] for tensor in tensors], device=tensors[0].device)
    return torch.nn.utils.rnn.pad_sequence(list(tensors), batch_first=True), lengths


def halved(length: Tensor | int, times: int) -> Tensor | int:
    """Rows left after `times` convolutions of stride 2 that pad by SAME: ceil(length / 2^times)."""
    return -(-length // 2**times)
