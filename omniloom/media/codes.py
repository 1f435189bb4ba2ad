"""The fixed catalogue of refusals, and the one door through which a foreign decoder's failure leaves this room.

A `MediaError` carries a code for programs and our own constant text with our own numbers for people. The words of a
decoding library never pass: they may hold memory addresses or file names of the machine that decodes (CVE-2026-22778
was such a leak).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import av

from ..errors import MediaError

__all__ = ["CODES", "foreign_decoder", "invalid", "too_large"]

CODES: dict[str, str] = {
    "audio_too_large": "more bytes, channels or decoded bytes, or a higher sample rate, than the limits allow",
    "audio_too_long": "the sound lasts longer than the limits allow",
    "empty_media": "the source holds no bytes",
    "file_unreadable": "the path cannot be opened: absent, a folder, a device, or not permitted",
    "image_too_large": "more bytes, pixels or pixels along a side than the limits allow",
    "invalid_audio": "not a readable sound: broken, truncated, without samples, or with samples that are not finite",
    "invalid_image": "not a readable image: broken, truncated or without pixels",
    "invalid_map": "not a readable map: broken, of another shape, or with numbers that are not finite",
    "invalid_media": "not a readable payload of a registered kind",
    "invalid_points": "not a readable set of points: broken, of another shape, or not finite",
    "invalid_series": "not a readable time series: broken, of another shape, or not finite",
    "invalid_video": "not a readable video: broken, truncated, without frames, or with times that run backwards",
    "map_too_large": "more bytes, channels or values than the limits allow",
    "media_too_large": "a source of a registered kind has more bytes than the limits allow",
    "media_url_disabled": "the source is an address; nothing is ever fetched",
    "no_audio_stream": "the container holds no sound",
    "no_video_stream": "the container holds no pictures",
    "path_outside_root": "the path leaves the folder that it has to stay in",
    "pickle_refused": "the array file holds Python objects; they are never unpickled",
    "points_too_large": "more bytes, points or features than the limits allow",
    "series_too_large": "more bytes, channels or values than the limits allow",
    "too_many_parts": "more items of one kind than one request may carry",
    "unknown_kind": "no kind of media has this name",
    "unsupported_media_type": "the content is of a format outside the list for its kind",
    "unsupported_option": "an option that this kind of media does not have",
    "unsupported_source": "a Python object of a type that this kind cannot be made from",
    "unsupported_target": "a payload cannot be written in the format that the file name asks for",
    "video_too_large": "more bytes, seconds, frames or pixels than the limits allow",
    "wrong_payload": "a payload of another kind than was asked for",
}


def invalid(kind: str) -> str:
    """The code for broken content of `kind`; registered kinds share `invalid_media`."""
    return f"invalid_{kind}" if f"invalid_{kind}" in CODES else "invalid_media"


def too_large(kind: str) -> str:
    """The code for content of `kind` beyond its limits; registered kinds share `media_too_large`."""
    return f"{kind}_too_large" if f"{kind}_too_large" in CODES else "media_too_large"


@contextmanager
def foreign_decoder(code: str, message: str) -> Iterator[None]:
    """Whatever the library inside the block raises becomes `MediaError(code, message)`, without its words.

    Decoders fail in too many ways to list (OSError, SyntaxError, struct.error, zlib.error, IndexError ...), and each of
    them means the same here: these bytes are not what they claim. Our own MediaError and MemoryError pass unchanged.
    """
    try:
        yield
    except MediaError:
        raise
    except Exception as error:
        # FFmpeg's "out of memory" is a MemoryError too, but it means a forged size that it refused to allocate.
        if isinstance(error, MemoryError) and not isinstance(error, av.FFmpegError):
            raise
        raise MediaError(code, message) from None
