"""Every error that Omniloom raises on purpose.

A message says four things: what is wrong, what was got, what was expected, what to do. Anything else
that escapes is a defect of Omniloom.

    OmniloomError
    ├── ConfigError        a run file or an argument cannot mean anything; carries file and line
    ├── MediaError         bytes, a file or an array is not the medium it should be; carries a `code`
    ├── DataError          a record of a data source is malformed; carries file and line
    ├── PlanError          a plan would be wrong: counts, labels, borders
    ├── ShapeError         a part got or gave tensors of another shape than it declares
    ├── FreezeError        a selector or a frozen part is not what was declared
    ├── CheckpointError    a saved run is incomplete, altered or of another model
    ├── MissingAssetError  a package, model or data set is not here
    └── TrainingError      a run cannot go on: loss not finite, interrupted and not resumable
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "FreezeError",
    "MediaError",
    "MissingAssetError",
    "OmniloomError",
    "PlanError",
    "ShapeError",
    "TrainingError",
    "did_you_mean",
]


class OmniloomError(Exception):
    """Base of all errors that Omniloom raises on purpose."""


class _LocatedError(OmniloomError):
    """An error with a place in a file: `file` and `line` (from 1) are None where there is none."""

    def __init__(self, message: str, *, file: str | None = None, line: int | None = None) -> None:
        self.message = message
        self.file = file
        self.line = line
        place = "" if file is None else f"{file}: " if line is None else f"{file}:{line}: "
        super().__init__(place + message)


class ConfigError(_LocatedError):
    """A run file, a spec or an argument cannot mean anything."""


class DataError(_LocatedError):
    """A record of a data source is malformed."""


class MediaError(OmniloomError):
    """Bytes, a file or an array is not the medium it should be, or exceeds a limit.

    `code` is one word of a fixed catalogue (`omniloom.media.CODES`), for programs; the message is for people.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(f"[{code}] {message}")


class PlanError(OmniloomError):
    """A plan would be wrong: counts that disagree, a label off its slot, a cut inside a segment."""


class ShapeError(OmniloomError):
    """A part got or gave tensors of another shape than it declares."""


class FreezeError(OmniloomError):
    """A selector matches nothing, a count differs from the recorded one, or a frozen part changed."""


class CheckpointError(OmniloomError):
    """A saved run is incomplete, altered or belongs to another model."""


class MissingAssetError(OmniloomError):
    """A package, model or data set that a run names is not here and cannot be had."""


class TrainingError(OmniloomError):
    """A run cannot go on."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error message for an unknown name: the nearest known ones, then all of them."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{hint} Known: {', '.join(names) if names else 'none'}."
