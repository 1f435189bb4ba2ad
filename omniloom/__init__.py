"""Omniloom: weave modalities into a language model.

The Python door mirrors the command line: `load(run).chat([...])`, `train(run)`, `evaluate(run)`,
`add_modality(run, file)`.
Importing this package loads neither torch nor transformers; the first use of a door does.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "add_modality", "evaluate", "load", "train"]

_DOORS = dict.fromkeys(("add_modality", "evaluate", "load", "train"), "omniloom.api")


def __getattr__(name: str) -> Any:
    if name in _DOORS:
        from importlib import import_module

        return getattr(import_module(_DOORS[name]), name)
    raise AttributeError(f"module 'omniloom' has no attribute {name!r}")
