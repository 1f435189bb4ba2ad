"""The one place where a demuxer is opened: MP4 / MOV / M4A, Matroska / WebM, AVI, MP3 and FLAC, chosen by content.

The demuxer is named, so that no playlist format (HLS, DASH, concat) can be probed into; it reads from memory, and every
attempt of it to open something else - a file, an address - is refused. Codecs outside the lists are never decoded.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NoReturn, TypeAlias

import av

from .codes import foreign_decoder

if TYPE_CHECKING:
    from av.container import InputContainer

    Container: TypeAlias = InputContainer
else:
    Container = "av.container.InputContainer"

__all__ = ["AUDIO_CODECS", "VIDEO_CODECS", "Container", "open_container"]

_DEMUXERS = {"mp4": "mp4", "matroska": "matroska", "avi": "avi", "mp3": "mp3", "flac": "flac"}
_BROKEN = "the container is broken or truncated. Fetch or convert the file again."

VIDEO_CODECS = frozenset(
    {"h264", "hevc", "vp8", "vp9", "libvpx", "libvpx-vp9", "av1", "libdav1d", "mpeg4", "msmpeg4v3", "mjpeg", "theora"}
)
AUDIO_CODECS = frozenset(
    {"aac", "mp3", "mp3float", "mp2", "mp2float", "opus", "libopus", "vorbis", "flac", "alac", "ac3"}
    | {"pcm_alaw", "pcm_mulaw", "pcm_u8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_f32le"}
)


def _open_nothing(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise PermissionError("a container asked for another file")


def open_container(content: bytes, found: str, code: str) -> Container:
    """Open `content`, of the format `found` (mp4, matroska, avi, mp3 or flac), for demuxing.

    Raises:
        MediaError: `code` if the demuxer cannot read it.
    """
    codecs = ",".join(sorted(VIDEO_CODECS | AUDIO_CODECS))
    options = {"codec_whitelist": codecs, "enable_drefs": "0"} if found == "mp4" else {"codec_whitelist": codecs}
    with foreign_decoder(code, _BROKEN):
        return av.open(
            io.BytesIO(content),
            "r",
            format=_DEMUXERS[found],
            container_options=options,
            io_open=_open_nothing,
            metadata_errors="replace",
        )
