"""The check that every projector makes of the rows it gets."""

from __future__ import annotations

from omniloom.errors import ShapeError
from omniloom.projectors.base import Projector
from omniloom.sequence import Packed

__all__ = ["require_width"]


def require_width(projector: Projector, packed: Packed) -> None:
    """Hold the rows to the projector's `in_dim`.

    Raises:
        ShapeError: another width, or no items.
    """
    name = type(projector).__name__
    if len(packed) == 0:
        raise ShapeError(
            f"{name} got no items; expected at least one. Give a batch without the modality its minimal raw."
        )
    if packed.x.shape[1] != projector.in_dim:
        raise ShapeError(
            f"{name} got rows {packed.x.shape[1]} wide; expected {projector.in_dim}. "
            "Build it with the width that the part before it gives."
        )
