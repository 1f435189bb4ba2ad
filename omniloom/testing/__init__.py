"""Room 8: the conformance kit for authors of parts, and tiny instances of real classes for tests.

`check_modality("file.py")` holds a new modality to every law; `check_processor`, `check_encoder`, `check_projector` and
`check_codec` hold single parts to theirs. `tiny_language_model`, `CleanBackbone` and `write_tiny_run` are small enough
for a test. Each name is imported when it is first used.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "CleanBackbone",
    "ConformanceFailure",
    "ConformanceReport",
    "check_codec",
    "check_encoder",
    "check_modality",
    "check_processor",
    "check_projector",
    "made_payloads",
    "tiny_language_model",
    "tiny_tokenizer",
    "write_tiny_data",
    "write_tiny_run",
]

_ROOMS = {
    "CleanBackbone": "doubles",
    "made_payloads": "payloads",
    "tiny_language_model": "doubles",
    "tiny_tokenizer": "doubles",
    "write_tiny_data": "tiny_run",
    "write_tiny_run": "tiny_run",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        from importlib import import_module

        return getattr(import_module(f"omniloom.testing.{_ROOMS.get(name, 'conformance')}"), name)
    raise AttributeError(f"module 'omniloom.testing' has no attribute {name!r}")
