"""The one gateway: whatever a medium comes as, `load` gives its payload or a MediaError.

    source --sources.Reader--> bytes or a Python object --KINDS[kind].loader--> payload

Training, evaluation, chat and serving all come through here, so a limit or a refusal holds on every path.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, MediaError, did_you_mean
from .arrays import load_points, load_series
from .audio import load_audio
from .image import load_image
from .limits import Limits
from .maps import load_map
from .options import LoadOptions
from .payloads import Audio, Image, Map, Payload, Points, Series, Video
from .sources import Reader
from .video import load_video

__all__ = ["KINDS", "Kind", "Loader", "load", "register_kind"]

Loader = Callable[[object, LoadOptions], Payload]


@dataclass(frozen=True)
class Kind:
    """One row of the table: what a loader of this kind returns, and the loader.

    A loader gets bytes (of a path, base64, a data URI or bytes) or the Python object that was given, holds it against
    `options.limits`, and raises nothing but MediaError.
    """

    payload_type: type[Payload]
    loader: Loader


KINDS: dict[str, Kind] = {
    "image": Kind(Image, load_image),
    "audio": Kind(Audio, load_audio),
    "video": Kind(Video, load_video),
    "points": Kind(Points, load_points),
    "series": Kind(Series, load_series),
    "map": Kind(Map, load_map),
}


def register_kind(kind: str, payload_type: type[Payload], loader: Loader) -> None:
    """Add a kind of media, loadable by `load(source, kind)` from then on.

    Registering the same row again changes nothing, so that a module may be imported twice.

    Raises:
        ConfigError: the name is taken by another row, or `payload_type` is not a Payload of this kind.
    """
    if not (isinstance(payload_type, type) and issubclass(payload_type, Payload) and payload_type.kind == kind):
        raise ConfigError(
            f"payload_type of kind {kind!r} must derive from Payload and have the class attribute kind = {kind!r}."
        )
    row = Kind(payload_type, loader)
    if KINDS.setdefault(kind, row) != row:
        raise ConfigError(f"kind {kind!r} is registered already, with another type or loader. Choose another name.")


def load(
    source: object,
    kind: str,
    *,
    limits: Limits | None = None,
    root: str | os.PathLike[str] | None = None,
    allow_absolute: bool = True,
    max_frames: int | None = None,
    fps: float | None = None,
) -> Payload:
    """The payload of `kind` that `source` holds.

    Args:
        source: a path (str or Path), bytes, a data URI, {"path": ...}, {"base64": ...}, {"data_uri": ...}, an array, a
            tensor, a PIL image, nested lists, {"samples", "rate_hz"}, {"values", "rate_hz"}, {"xyz", "features"},
            {"frames", "fps" | "times_s", "audio"}, or a payload, which is held against the limits and returned.
            A str that starts with "data:" is a data URI, one that looks like an address is refused, any other is a
            path.
        limits: bounds of this item; None means the defaults of `Limits`.
        root: relative paths are below it and cannot leave it; None means the working folder, and no such check.
        allow_absolute: False holds absolute paths to `root` as well.
        max_frames, fps: for video, how many frames are kept and how densely; see `sampling.choose_times`.
    Raises:
        MediaError: its `code` is one of `CODES`. Paths in the message are the caller's own words.
    """
    if kind not in KINDS:
        raise MediaError("unknown_kind", f"unknown kind of media {kind!r}.{did_you_mean(str(kind), KINDS)}")
    row = KINDS[kind]
    limits = Limits() if limits is None else limits
    options = LoadOptions(limits, max_frames, fps)
    try:
        if isinstance(source, Payload):
            if not isinstance(source, row.payload_type):
                raise MediaError("wrong_payload", f"got a payload of kind {source.kind!r}; expected {kind!r}.")
            return row.loader(source, options)
        reader = Reader(kind, limits, None if root is None else Path(root), allow_absolute)
        return row.loader(reader.read(source), options)
    except MediaError as error:
        label = _label(source)
        if label is None or error.code == "media_url_disabled":  # an address may carry a password
            raise
        raise MediaError(error.code, f"cannot read {kind} {label}: {error.message}") from None


def _label(source: object) -> str | None:
    """The path as the caller wrote it, for the message; None for sources without one."""
    if isinstance(source, dict):
        source = source.get("path")
    if isinstance(source, os.PathLike):
        source = os.fspath(source)
    if not isinstance(source, str) or source[:5].lower() == "data:":
        return None
    return repr(source if len(source) <= 120 else "..." + source[-117:])
