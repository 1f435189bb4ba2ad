"""Files and folders that are there whole or not at all, and their digests."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["remove_leftovers", "sha256_of_file", "whole_folder", "write_whole"]

_MARK = ".unfinished-"


def write_whole(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader, or a power cut, meets the old bytes or the new ones, never half of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}{_MARK}{uuid.uuid4().hex[:8]}")
    try:
        with open(draft, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    _sync(path.parent)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A draft folder beside `path`, moved to `path` at the end; nothing is left of it after an error.

    An older folder at `path` is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}{_MARK}{uuid.uuid4().hex[:8]}")
    draft.mkdir()
    try:
        yield draft
        for file in draft.rglob("*"):
            if file.is_file():
                with open(file, "rb") as handle:
                    os.fsync(handle.fileno())
        if path.exists():
            old = path.with_name(f"{path.name}{_MARK}{uuid.uuid4().hex[:8]}")
            os.rename(path, old)
            os.rename(draft, path)
            shutil.rmtree(old)
        else:
            os.rename(draft, path)
        _sync(path.parent)
    finally:
        if draft.exists():
            shutil.rmtree(draft)


def remove_leftovers(folder: Path) -> int:
    """Remove drafts that a killed process left in a folder or below it; returns how many."""
    found = [path for path in folder.rglob(f"*{_MARK}*") if _MARK not in path.relative_to(folder).parent.as_posix()]
    for path in found:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return len(found)


def sha256_of_file(path: Path) -> str:
    """The hex sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
