"""The cache folder of the starter kit: where it is, how a folder is put into it, how it is checked.

A folder in the cache is either whole or absent. It is made beside its place under another name, its
`manifest.json` (the sha256 of every file) is written last, and one rename puts it in place; a lock keeps two
processes from making the same folder at once.

The cache lies in `$OMNILOOM_HOME`, by default `~/.cache/omniloom`:
    assets/NAME     members unpacked from a package, as they were
    models/NAME     converted models, ordinary transformers folders
    data/NAME-V     data sets, ordinary folders of media and JSON lines
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from omniloom.errors import CheckpointError

__all__ = ["MANIFEST", "Progress", "file_sha256", "folder_sha256s", "home", "made_folder", "silent", "tree_sha256"]

MANIFEST = "manifest.json"

Progress = Callable[[str, str], None]
"""Called as `progress(name, stage)` before each stage of getting something; `stage` is a short phrase."""


def silent(name: str, stage: str) -> None:
    """The progress callback that says nothing."""


def home() -> Path:
    """The cache folder: `$OMNILOOM_HOME` if set, else `~/.cache/omniloom`.

    The only place of the starter kit that reads the environment.
    """
    named = os.environ.get("OMNILOOM_HOME", "")
    return Path(named).expanduser().resolve() if named else Path.home() / ".cache" / "omniloom"


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_sha256s(folder: Path) -> dict[str, str]:
    """Relative POSIX path -> sha256 of every file below `folder`, sorted, without its manifest.

    Raises:
        CheckpointError: the folder holds a link; what it points to may change without notice.
    """
    sums: dict[str, str] = {}
    for path in sorted(folder.rglob("*"), key=lambda p: p.relative_to(folder).as_posix()):
        if path.is_symlink():
            raise CheckpointError(f"{path} is a link, expected plain files only. Delete {folder} and fetch it again.")
        if path.is_file() and path.relative_to(folder).as_posix() != MANIFEST:
            sums[path.relative_to(folder).as_posix()] = file_sha256(path)
    return sums


def tree_sha256(sums: dict[str, str]) -> str:
    """One sha256 for many files: that of the file itself if there is one, else of the sorted `sha256  path` lines."""
    if len(sums) == 1:
        return next(iter(sums.values()))
    lines = "".join(f"{sums[path]}  {path}\n" for path in sorted(sums))
    return hashlib.sha256(lines.encode()).hexdigest()


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.parent / f".{place.name}.lock"):
        yield


def made_folder(place: Path, stamp: dict[str, str], make: Callable[[Path], None]) -> Path:
    """`place`, made by `make(empty folder)` unless it is there with the same `stamp`.

    Args:
        place: where the folder shall be.
        stamp: what it was made from (versions, source hashes); another stamp means another folder, and it is remade.
        make: fills an empty folder; if it raises, nothing is left behind.
    Returns:
        `place`, whole, with a `manifest.json` of {"stamp": ..., "sha256": ..., "files": {path: sha256}}.
    """
    with _locked(place):
        if _stamp_of(place) == stamp:
            return place
        with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as temporary:
            fresh = Path(temporary) / "fresh"
            fresh.mkdir()
            make(fresh)
            sums = folder_sha256s(fresh)
            manifest = {"stamp": stamp, "sha256": tree_sha256(sums), "files": sums}
            (fresh / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
            if place.exists():
                place.rename(Path(temporary) / "old")
            fresh.rename(place)
    return place


def _stamp_of(place: Path) -> dict[str, str] | None:
    """The stamp of the folder at `place`; None where there is none. A folder without its manifest was not made here."""
    try:
        manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if place.exists():
            raise CheckpointError(
                f"{place} exists but has no {MANIFEST}: it was altered or put there by something else. Move it away."
            ) from None
        return None
    return manifest["stamp"]


def verified(place: Path) -> None:
    """Hash every file of a cached folder against its manifest.

    Raises:
        CheckpointError: a file is missing, added or altered.
    """
    manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
    found = folder_sha256s(place)
    wrong = sorted(set(found.items()) ^ set(manifest["files"].items()))
    if wrong:
        raise CheckpointError(
            f"{place}: {wrong[0][0]} is missing, added or altered. Delete the folder and fetch it again."
        )


def copied(source: Path, target: Path) -> None:
    """Copy one file, making the folders on the way."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
