"""Rows of frozen encoders on disk, so that every item is encoded once.

One file an item, in 256 folders by the first byte of its key: `ab/abcdef....safetensors`, rows `x` with taps and
pooled vector where there are any, and their shape in the header. A file is written beside its place and renamed, so
readers see whole files only and several processes may write the same key. Every file carries the sha256 of its rows;
one that does not agree is reported, removed and made anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from omniloom.checkpoint.tensors import digest_of
from omniloom.errors import ShapeError
from omniloom.sequence import Packed, Shape

__all__ = ["CacheStats", "FeatureCache"]

_FORM = 2  # of what a file holds and how raw tensors are made; rows of another form are made anew


@dataclass
class CacheStats:
    """What a cache did since it was opened. `read_bytes` and `written_bytes` count rows, without headers."""

    hits: int = 0
    misses: int = 0
    corrupt: int = 0
    read_bytes: int = 0
    written_bytes: int = 0


class FeatureCache:
    """A folder of encoder rows by key."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.stats = CacheStats()

    @classmethod
    def of(cls, run: Path, shared: str | None) -> FeatureCache:
        """The cache of a run folder: a shared one, whose path starts from there, or its own."""
        return cls((run / shared).resolve() if shared is not None else run / "cache")

    @staticmethod
    def key(payload_key: str, processor_spec: str | Mapping[str, Any], encoder_digest: str) -> str:
        """sha256 of what the rows depend on: the payload's digest, the processor's spec, the encoder's weights."""
        parts = [_FORM, payload_key, processor_spec, encoder_digest]
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def __contains__(self, key: str) -> bool:
        return self._path(key).is_file()

    def get(self, key: str) -> Packed | None:
        """The rows of one item, on the CPU; None if they are not here.

        A file that is damaged is removed with a warning and counts as not here.
        """
        path = self._path(key)
        try:
            packed = _read(path)
        except FileNotFoundError:
            self.stats.misses += 1
            return None
        except (SafetensorError, ShapeError, KeyError, TypeError, ValueError) as error:
            warnings.warn(f"cached rows {path} are damaged ({error}); they are made anew.", stacklevel=2)
            path.unlink(missing_ok=True)
            self.stats.corrupt += 1
            self.stats.misses += 1
            return None
        self.stats.hits += 1
        self.stats.read_bytes += sum(
            value.nbytes for value in (packed.x, packed.pooled, *packed.taps.values()) if value is not None
        )
        return packed

    def put(self, key: str, packed: Packed) -> None:
        """Keep the rows of one item.

        Raises:
            ShapeError: `packed` holds several items.
        """
        if len(packed) != 1:
            raise ShapeError(f"the cache keeps rows of one item, got {len(packed)} items.")
        tensors = {"x": packed.x, **{f"tap.{layer}": rows for layer, rows in packed.taps.items()}}
        if packed.pooled is not None:
            tensors["pooled"] = packed.pooled
        # Copies, not views: taps of one item may be slices of one storage, which the format does not take.
        tensors = {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()
        }
        shape = packed.shapes[0]
        facts = {
            "len": shape.len,
            "grid": shape.grid,
            "times": shape.times,
            "mosaic": shape.mosaic,
            "sha256": digest_of(tensors),
        }
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(save(tensors, metadata={"rows": json.dumps(facts)}))
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        self.stats.written_bytes += sum(value.nbytes for value in tensors.values())

    def _path(self, key: str) -> Path:
        if len(key) != 64 or not set(key) <= set("0123456789abcdef"):
            raise ValueError(f"a key is a sha256 in hexadecimal (FeatureCache.key), got {key!r}.")
        return self.folder / key[:2] / f"{key}.safetensors"


def _read(path: Path) -> Packed:
    with safe_open(path, framework="pt") as file:
        facts = json.loads((file.metadata() or {})["rows"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if digest_of(tensors) != facts["sha256"]:
        raise ValueError("the sha256 of the rows differs")
    grid, times, mosaic = (facts[name] and tuple(facts[name]) for name in ("grid", "times", "mosaic"))
    taps = {int(name.removeprefix("tap.")): value for name, value in tensors.items() if name.startswith("tap.")}
    return Packed(tensors["x"], (Shape(facts["len"], grid, times, mosaic),), tensors.get("pooled"), taps)
