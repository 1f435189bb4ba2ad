"""What an encoder reads of one item: one tensor, or several under names.

Most media become one raw tensor. A `Bundle` is for what one tensor cannot say: tiles and how they lie, two front ends
of two encoders over one sound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from omniloom.errors import ShapeError

__all__ = ["Bundle", "Raw", "same_raw"]


class Bundle(Mapping[str, Tensor]):
    """Named tensors of one item, read-only. It moves and counts as one tensor would.

    Raises:
        ShapeError: nothing in it, or something that is no tensor.
    """

    def __init__(self, **tensors: Tensor) -> None:
        if not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
            raise ShapeError(f"a bundle holds one tensor or more, by name; got {tensors!r:.80}.")
        self._tensors = tensors

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={tuple(value.shape)}" for name, value in self.items())
        return f"Bundle({inside})"

    def to(self, *args: Any, **options: Any) -> Bundle:
        """Every tensor by `Tensor.to`; integers and booleans keep their dtype."""
        return Bundle(
            **{
                name: value.to(*args, **options) if value.is_floating_point() else value.to(_device_of(args, value))
                for name, value in self.items()
            }
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(value.nbytes for value in self.values())


Raw = Tensor | Bundle
"""What a processor makes and an encoder reads."""


def same_raw(a: Raw, b: Raw) -> bool:
    """Bit-equal: same names, dtypes, shapes and contents."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    return list(a) == list(b) and all(same_raw(a[name], b[name]) for name in a)


def _device_of(args: tuple[Any, ...], value: Tensor) -> torch.device:
    for arg in args:
        if isinstance(arg, Tensor):
            return arg.device
        if isinstance(arg, torch.device | str):
            return torch.device(arg)
    return value.device
