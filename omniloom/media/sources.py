"""Where media come from: a path, bytes, base64 or a data URI become bytes; Python objects pass through.

Nothing here ever opens a network connection: an address is refused by its look, before anything else is tried. Sizes
are checked before reading and before decoding base64.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from ..errors import MediaError
from .codes import invalid
from .limits import Limits

__all__ = ["EncodedFrames", "Reader"]

# Two letters at least, so that the drive in C:\\clips\\a.wav is a path. Two leading slashes or backslashes name a host
# on Windows, where opening such a path sends packets.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:|//|\\\\")
_WHITESPACE = b" \t\r\n\f\v"
_KEYS = ("path", "base64", "data_uri", "url")


@dataclass(frozen=True)
class EncodedFrames:
    """The body of a `data:video/jpeg;base64,A,B,C` URI: several base64 pictures, not yet decoded.

    `rate_hz` is the URI's `fps` parameter (`data:video/jpeg;fps=4;base64,...`), 1 if absent.
    """

    body: str
    rate_hz: float

    @property
    def count(self) -> int:
        """How many frames there are; counts commas, decodes nothing."""
        return self.body.count(",") + 1


@dataclass(frozen=True)
class Reader:
    """Reads the sources of one kind of media.

    Args:
        kind: names the codes and the byte limit.
        root: relative paths resolve against it and may not leave it, by `..` or by a link; None means the working
        folder,
            without that check.
        allow_absolute: whether an absolute path may lie outside `root`.
    """

    kind: str
    limits: Limits
    root: Path | None = None
    allow_absolute: bool = True

    def read(self, source: object) -> object:
        """The bytes of `source`, or an `EncodedFrames`; `source` itself if it is an array or another object.

        Raises:
            MediaError: `media_url_disabled`, `path_outside_root`, `file_unreadable`, `empty_media`, the kind's
            too-large
                code, or its invalid code where base64 or a data URI is malformed.
        """
        if isinstance(source, Mapping):
            keys = [key for key in _KEYS if key in source]
            if not keys:
                return source
            if len(source) != 1:
                raise MediaError("unsupported_source", f"a source dict with {keys[0]!r} must hold nothing else.")
            value = source[keys[0]]
            if keys[0] == "url":
                raise MediaError("media_url_disabled", _URL_MESSAGE)
            if keys[0] == "path":
                return self.read_path(value)
            if not isinstance(value, str | bytes):
                raise MediaError("unsupported_source", f"{keys[0]!r} must be text.")
            text = self._ascii_bytes(value)
            return self.decode_base64(text) if keys[0] == "base64" else self.decode_data_uri(text)
        if isinstance(source, str) and source[:5].lower() == "data:":
            return self.decode_data_uri(self._ascii_bytes(source))
        if isinstance(source, str | os.PathLike):
            return self.read_path(source)
        if isinstance(source, bytes | bytearray | memoryview):
            content = bytes(source)
            self.limits.check_bytes(self.kind, len(content))
            return self._nonempty(content)
        return source

    def _nonempty(self, content: bytes) -> bytes:
        if not content:
            raise MediaError("empty_media", f"the {self.kind} holds no bytes. Pass the whole file.")
        return content

    def _ascii_bytes(self, text: str | bytes) -> bytes:
        if isinstance(text, bytes):
            return text
        if not text.isascii():
            raise MediaError(invalid(self.kind), "base64 text holds characters outside ASCII. Encode the bytes again.")
        return text.encode("ascii")

    def read_path(self, source: object) -> bytes:
        """The bytes of a regular file. A str that looks like an address is refused; a Path never looks like one."""
        if isinstance(source, str) and _ADDRESS.match(source.strip()):
            raise MediaError("media_url_disabled", _URL_MESSAGE)
        if not isinstance(source, str | os.PathLike):
            raise MediaError("unsupported_source", "'path' must be a str or a Path.")
        unreadable = MediaError(
            "file_unreadable", "there is no readable regular file at this path. Check the path and root."
        )
        try:
            path = self._resolve(Path(source))
            # Not following a link at the last step and not blocking on a FIFO: the file is the one that was resolved.
            flags = (
                os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
            )
            descriptor = os.open(path, flags)
        except (OSError, ValueError, RuntimeError):  # ValueError: NUL in the path; RuntimeError: a loop of links
            raise unreadable from None
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            os.close(descriptor)
            raise unreadable
        with os.fdopen(descriptor, "rb") as file:
            self.limits.check_bytes(self.kind, state.st_size)
            # A file can grow after it was measured: never read more than one byte above the limit.
            content = file.read(self.limits.encoded_bytes(self.kind) + 1)
        self.limits.check_bytes(self.kind, len(content))
        return self._nonempty(content)

    def _resolve(self, path: Path) -> Path:
        if self.root is None:
            return path.resolve(strict=True)
        root = self.root.resolve(strict=True)
        # A path that climbs is refused before the disk is asked, so that the answer does not tell what exists outside.
        lexical = Path(os.path.normpath(root / path))
        is_bound = not path.is_absolute() or not self.allow_absolute
        if is_bound and not lexical.is_relative_to(root) and not lexical.is_relative_to(self.root.absolute()):
            raise MediaError("path_outside_root", _ROOT_MESSAGE)
        resolved = (root / path).resolve(strict=True)
        if is_bound and not resolved.is_relative_to(root):
            raise MediaError("path_outside_root", _ROOT_MESSAGE)
        return resolved

    def decode_base64(self, text: bytes) -> bytes:
        """Standard alphabet, padding required, ASCII whitespace ignored."""
        if text[:5].lower() == b"data:":
            raise MediaError(
                invalid(self.kind), "base64 text starts with 'data:'. Pass it as {'data_uri': ...} or as a str."
            )
        text = text.translate(None, _WHITESPACE)
        self.limits.check_bytes(self.kind, len(text) // 4 * 3 - 2)
        try:
            content = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            message = "not base64: the standard alphabet (+ and /, not - and _) with its padding is expected."
            raise MediaError(invalid(self.kind), message) from None
        self.limits.check_bytes(self.kind, len(content))
        return self._nonempty(content)

    def decode_data_uri(self, uri: bytes) -> bytes | EncodedFrames:
        """`data:[type][;key=value]...[;base64],body`. The type is not believed: the content decides the format."""
        head, comma, body = uri[5:].partition(b",")
        if not comma or len(head) > 1024 or uri[:5].lower() != b"data:":
            raise MediaError(invalid(self.kind), "not a data URI: 'data:TYPE;base64,BODY' is expected.")
        media_type, *parameters = [part.strip().lower() for part in head.split(b";")]
        if b"base64" not in parameters:
            self.limits.check_bytes(self.kind, len(body) // 3)
            content = unquote_to_bytes(body)
            self.limits.check_bytes(self.kind, len(content))
            return self._nonempty(content)
        if self.kind == "video" and (media_type == b"video/jpeg" or b"," in body):
            self.limits.check_bytes(self.kind, len(body) // 4 * 3 - 2)
            return EncodedFrames(body.decode("ascii", "replace"), self._frame_rate(parameters))
        return self.decode_base64(body)

    def _frame_rate(self, parameters: list[bytes]) -> float:
        for parameter in parameters:
            key, _, value = parameter.partition(b"=")
            if key == b"fps":
                if not re.fullmatch(rb"\d{1,4}(\.\d{1,6})?", value) or float(value) <= 0:
                    raise MediaError(
                        "invalid_video", "the fps of a data URI must be a number above zero, as in fps=2.5."
                    )
                return float(value)
        return 1.0


_URL_MESSAGE = "the source is an address and nothing is fetched. Download it first and pass a path or the bytes."
_ROOT_MESSAGE = "the path leaves its folder, by '..', by a link or as an absolute path. Keep the files below root."
