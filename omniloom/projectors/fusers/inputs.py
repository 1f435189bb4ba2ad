"""What every fuser asks of its inputs: their names and widths when it is built, their rows when it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omniloom.errors import ConfigError, ShapeError
from omniloom.projectors.fusing import Fuser, Group

__all__ = ["first_of", "require_groups", "require_inputs", "same_width"]


def require_inputs(fuser: Fuser, in_dims: Mapping[str, int], count: int) -> None:
    """Hold a fuser to a number of inputs at least.

    Raises:
        ConfigError: fewer.
    """
    if len(in_dims) < count:
        raise ConfigError(f"{type(fuser).__name__} fuses {count} inputs or more, got {', '.join(in_dims) or 'none'}.")


def same_width(fuser: Fuser, in_dims: Mapping[str, int]) -> int:
    """The width that all inputs have.

    Raises:
        ConfigError: they have several.
    """
    require_inputs(fuser, in_dims, 1)
    if len(set(in_dims.values())) != 1:
        widths = ", ".join(f"{name} {width}" for name, width in in_dims.items())
        raise ConfigError(
            f"{type(fuser).__name__} adds rows of one width, got {widths}. End their projectors at the same width."
        )
    return next(iter(in_dims.values()))


def require_groups(fuser: Fuser, groups: Sequence[Group]) -> None:
    """Hold groups to the inputs of a fuser.

    Raises:
        ShapeError: no groups, an empty one, an input that is not the fuser's, or rows of another width.
    """
    name = type(fuser).__name__
    if not groups:
        raise ShapeError(f"{name} got no groups; expected at least one.")
    for number, group in enumerate(groups):
        if not group or not set(group) <= set(fuser.in_dims):
            raise ShapeError(
                f"{name} got {', '.join(group) or 'nothing'} as group {number}; expected of {', '.join(fuser.in_dims)}."
            )
        for source, packed in group.items():
            if packed.x.shape[1] != fuser.in_dims[source]:
                raise ShapeError(
                    f"{name} got rows of {source!r} {packed.x.shape[1]} wide; expected {fuser.in_dims[source]}."
                )


def first_of(fuser: Fuser, group: Mapping[str, Any]) -> str:
    """The first input, which the others are fused into.

    Raises:
        ShapeError: the group lacks it.
    """
    first = next(iter(fuser.in_dims))
    if first not in group:
        raise ShapeError(
            f"{type(fuser).__name__} fuses into {first!r}, which a group of {', '.join(group)} lacks. Set `when: all`, "
            "or name first the input that is always there."
        )
    return first
