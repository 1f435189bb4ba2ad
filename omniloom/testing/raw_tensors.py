"""What the laws do with the tensors of items: raw ones, alone or under names in a bundle, and packed rows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from omniloom.sequence import Bundle, Packed, Raw

__all__ = ["changed_raw", "copied_raw", "mapped_rows", "shape_text", "tensors_of"]


def tensors_of(raw: Raw) -> list[Tensor]:
    """The tensors of an item."""
    return [raw] if isinstance(raw, Tensor) else list(raw.values())


def copied_raw(raw: Raw) -> Raw:
    """The same in memory of its own."""
    return _mapped(raw, Tensor.clone)


def shape_text(raw: Raw) -> str:
    """Its shapes, for people."""
    return str(tuple(raw.shape)) if isinstance(raw, Tensor) else repr(raw)


def changed_raw(raw: Raw) -> Raw:
    """One of the same shapes and dtypes with other contents.

    Whole numbers of a bundle (lengths, places of tiles) say how the others lie and stay, unless it holds nothing else.
    """
    draw = torch.Generator().manual_seed(1)
    has_numbers = any(value.is_floating_point() for value in tensors_of(raw))

    def changed(value: Tensor) -> Tensor:
        if value.is_floating_point():
            return value + (value.std(correction=0) + 0.1) * torch.randn(value.shape, generator=draw).to(value)
        if has_numbers:
            return value
        return value.flatten()[torch.randperm(value.numel(), generator=draw)].view(value.shape)

    return _mapped(raw, changed)


def mapped_rows(packed: Packed, change: Callable[[Tensor], Tensor]) -> Packed:
    """The same items with every tensor of rows changed: their own, the joint vectors, the inner layers'."""
    pooled = None if packed.pooled is None else change(packed.pooled)
    taps = {layer: change(rows) for layer, rows in packed.taps.items()}
    return Packed(change(packed.x), packed.shapes, pooled, taps)


def _mapped(raw: Raw, change: Callable[[Tensor], Tensor]) -> Raw:
    if isinstance(raw, Tensor):
        return change(raw)
    return Bundle(**{name: change(value) for name, value in raw.items()})
