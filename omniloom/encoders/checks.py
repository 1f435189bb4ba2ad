"""What every encoder checks of its raw tensors before it computes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from omniloom.errors import ShapeError
from omniloom.sequence import Raw

__all__ = ["refuse_raw", "require_items"]


def require_items(part: object, raws: Sequence[Raw]) -> None:
    """Refuse an empty batch.

    Raises:
        ShapeError: no items; a batch without the modality runs the part's `minimal_raw()` instead.
    """
    if len(raws) == 0:
        raise ShapeError(f"{type(part).__name__} got no items; expected at least one. Pass [minimal_raw()] instead.")


def refuse_raw(part: object, index: int, raw: Raw, expected: str, remedy: str) -> ShapeError:
    """The error for raw tensor `index` of another shape than `expected`; raise it."""
    got = f"has shape {tuple(raw.shape)}" if isinstance(raw, Tensor) else f"is a {raw!r}"
    return ShapeError(f"{type(part).__name__}: raw tensor {index} {got}; expected {expected}. {remedy}")
