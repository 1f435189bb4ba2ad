"""The table of packaged data sets, and how one comes into being: `dataset("things-image")` is a folder.

A row names the function that writes the set, the assets and other sets it is made of, and its version, which rises
whenever the function writes other bytes. Splits, prompts and format are described in `records`.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path

from omniloom.errors import MissingAssetError, did_you_mean
from omniloom.starter.assets import ASSETS, Asset
from omniloom.starter.cache import MANIFEST, Progress, home, made_folder, silent
from omniloom.starter.espeak import speech_absent_reason
from omniloom.starter.packages import absent_reason, fetch

__all__ = ["DATASETS", "PackagedData", "build", "dataset_absent_reason", "digest", "place", "sources"]

_SPEECH = "espeak-ng"  # an asset that the program of the same name may stand in for


@dataclass(frozen=True)
class PackagedData:
    """One data set; `builder` is `module:function`, called with an empty folder and {name: folder} of what it needs."""

    name: str
    version: int
    builder: str
    assets: tuple[str, ...]
    sets: tuple[str, ...]
    licence: str
    what: str


def _row(
    name: str,
    version: int,
    builder: str,
    what: str,
    *,
    assets: tuple[str, ...] = (),
    sets: tuple[str, ...] = (),
    licence: str = "",
) -> PackagedData:
    licence = licence or "; ".join(dict.fromkeys(ASSETS[asset].licence for asset in assets))
    return PackagedData(name, version, f"omniloom.starter.{builder}", assets, sets, licence, what)


_DIGITS_LICENCE = "BSD-3-Clause package (scikit-learn); UCI digits CC-BY-4.0"
_SPEECH_LICENCE = "made here, spoken by eSpeak NG (the program is GPL-3.0-or-later)"

DATASETS: dict[str, PackagedData] = {
    row.name: row
    for row in (
        _row("digits-image", 1, "images:digits_image", "image -> ten digits, unseen writers", licence=_DIGITS_LICENCE),
        _row("things-image", 1, "images:things_image", "image -> ten kinds of clothes", assets=("fashion-mnist",)),
        _row("easy-vqa", 1, "images:easy_vqa", "image and question -> shape, colour, yes or no", assets=("easy-vqa",)),
        _row("digits-draw", 1, "images:digits_draw", "name -> 8 x 8 picture of a digit", licence=_DIGITS_LICENCE),
        _row("spoken-digits", 1, "sounds:spoken_digits", "speech -> ten digits, unseen voices and speeds",
             assets=(_SPEECH,), licence=_SPEECH_LICENCE),
        _row("spoken-words", 1, "sounds:spoken_words", "speech -> 25 words, unseen voices and speeds",
             assets=(_SPEECH,), licence=_SPEECH_LICENCE),
        _row("music", 1, "sounds:music", "music -> 14 instruments, unseen pitches", assets=("timgm6mb",)),
        _row("watch-imu", 1, "sensors:watch_imu", "imu -> 7 exercises, unseen people", assets=("watch-imu",)),
        _row("appliance-current", 1, "sensors:appliance_current", "current -> 11 appliances", assets=("plaid",)),
        _row("molecule-points", 2, "solids:molecule_points", "points -> 12 classes of molecules, unseen formulas",
             assets=("molecules",)),
        _row("furniture-points", 2, "solids:furniture_points", "points -> 11 kinds of things, unseen models",
             assets=("furniture",)),
        _row("match-two", 1, "pairs:match_two", "image and speech -> the same digit or not",
             sets=("digits-image", "spoken-digits"), licence=f"{_DIGITS_LICENCE}; {_SPEECH_LICENCE}"),
        _row("instruct-text", 1, "text:instruct_text", "text -> sums, opposites, order, kinds; no medium",
             licence="Apache-2.0, made here"),
    )
}  # fmt: skip


def _named(name: str) -> PackagedData:
    if name not in DATASETS:
        raise MissingAssetError(f"unknown starter data set {name!r}.{did_you_mean(name, DATASETS)}")
    return DATASETS[name]


def place(name: str) -> Path:
    """Where data set `name` lies, or would lie."""
    return home() / "data" / f"{name}-{_named(name).version}"


def sources(name: str) -> list[Asset]:
    """The assets that data set `name` is made of, also through other sets, each once."""
    row = _named(name)
    names = [*row.assets, *(asset.name for other in row.sets for asset in sources(other))]
    return [ASSETS[asset] for asset in dict.fromkeys(names)]


def dataset_absent_reason(name: str) -> str:
    """Why data set `name` cannot be had on this system; empty if it can, or is in the cache already."""
    row = _named(name)
    if place(name).is_dir():
        return ""
    reasons = [speech_absent_reason() if asset == _SPEECH else absent_reason(asset) for asset in row.assets]
    reasons += [dataset_absent_reason(other) for other in row.sets]
    return next((reason for reason in reasons if reason), "")


def build(name: str, *, progress: Progress = silent) -> Path:
    """The folder of data set `name`, written where it is not there yet.

    Raises:
        MissingAssetError: there is no such data set, or what it is made of cannot be had.
    """
    row = _named(name)
    stamp = {"data": name, "version": str(row.version)}

    def make(folder: Path) -> None:
        # Speech fetches its own library, since a program may stand in for it.
        needs = {asset: fetch(asset, progress=progress) for asset in row.assets if asset != _SPEECH}
        needs |= {other: build(other, progress=progress) for other in row.sets}
        progress(name, "writing")
        module, _, function = row.builder.partition(":")
        getattr(importlib.import_module(module), function)(folder, needs)

    return made_folder(place(name), stamp, make)


def digest(name: str) -> str:
    """The sha256 over all files of data set `name`, which is built where it is not there yet."""
    return json.loads((build(name) / MANIFEST).read_text(encoding="utf-8"))["sha256"]
