"""Which format bytes are, by their content alone. File names and declared media types are never asked.

`sniff` gives one word or None. Each kind then has its own short list of words that it accepts;
what is not on it is refused before any decoder sees a byte.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ..errors import MediaError
from .mp3 import is_whole_mp3

__all__ = ["check_whole", "require_format", "sniff"]

# Pictures, and layered sound, in the same box structure as MP4: a demuxer would open them, nobody has asked for it.
_FOREIGN_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis", b"jxl ", b"crx ", b"iamf")
_MP4_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")


def sniff(content: bytes) -> str | None:
    """The format's word, or None for any that this room does not know.

    png, jpeg, webp, gif, tiff; wav, flac, ogg, mp3; mp4, matroska, avi; npy, zip, ply, off, text.
    """
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if content.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if content.startswith((b"II*\x00", b"MM\x00*")):
        return "tiff"
    if content[:4] in (b"RIFF", b"RF64"):
        return {b"WAVE": "wav", b"WEBP": "webp", b"AVI ": "avi"}.get(content[8:12])
    if content.startswith(b"fLaC"):
        return "flac"
    if content.startswith(b"OggS"):
        return "ogg"
    if content[4:8] in _MP4_FIRST_BOXES:
        brands = content[8:12] + content[16 : min(_u32(content, 0), 256)] if content[4:8] == b"ftyp" else b""
        is_foreign = any(brands[i : i + 4] in _FOREIGN_BRANDS for i in range(0, len(brands), 4))
        # A layered-sound track without its brand; its parser had memory errors once.
        is_foreign |= any(
            content.find(b"iacb", start, end) >= 0 for name, start, end in _mp4_boxes(content) if name == b"moov"
        )
        return None if is_foreign else "mp4"
    if content.startswith(b"\x1aE\xdf\xa3"):
        return "matroska"
    if content.startswith(b"\x93NUMPY"):
        return "npy"
    if content.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if content.startswith((b"ply\n", b"ply\r\n")):
        return "ply"
    if content.startswith((b"OFF\n", b"OFF\r\n", b"OFF ")):
        return "off"
    if content.startswith(b"ID3") or _is_mp3_frame(content):
        return "mp3"
    head = content[:4096]
    return "text" if b"\x00" not in head and all(byte >= 32 or byte in b"\t\n\r\f" for byte in head) else None


def require_format(content: bytes, kind: str, accepted: tuple[str, ...]) -> str:
    """The format of `content` if it is one of `accepted`.

    Raises:
        MediaError: `unsupported_media_type`, naming what was found and what is accepted.
    """
    found = sniff(content)
    if found not in accepted:
        got = "of no known format" if found is None else f"{found!r} by its content"
        message = f"this {kind} is {got}; accepted: {', '.join(accepted)}. Convert it first."
        raise MediaError("unsupported_media_type", message)
    return found


def _u32(content: bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 4], "big")


def _is_mp3_frame(content: bytes) -> bool:
    # 11 sync bits, a real version, layer II or III, a real bit rate and sample rate.
    if len(content) < 4 or content[0] != 0xFF or content[1] & 0xE0 != 0xE0:
        return False
    version, layer, bit_rate, rate = content[1] >> 3 & 3, content[1] >> 1 & 3, content[2] >> 4, content[2] >> 2 & 3
    return version != 1 and layer in (1, 2) and bit_rate not in (0, 15) and rate != 3


def check_whole(content: bytes, found: str, code: str) -> None:
    """Refuse a container whose own size fields promise more bytes than there are.

    Decoders stop quietly at a missing end; a clip that lost its second half would be labelled as the whole one.
    Formats without such fields (text, live matroska of unknown size) pass.
    """
    is_whole = {
        "png": _is_whole_png,
        "ogg": _is_whole_ogg,
        "mp3": is_whole_mp3,
        "mp4": _is_whole_mp4,
        "matroska": _is_whole_matroska,
        "avi": _is_whole_avi,
    }
    if found in is_whole and not is_whole[found](content):
        raise MediaError(code, f"the {found} data are truncated: their size fields promise more. Fetch the whole file.")


def _is_whole_png(content: bytes) -> bool:
    at = 8
    while at + 12 <= len(content):
        if content[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + _u32(content, at)
    return False


def _is_whole_ogg(content: bytes) -> bool:
    # The last page is marked as such (RFC 3533, section 6); decoders do without, and give the shorter sound.
    at, flags = 0, 0
    while at + 27 <= len(content) and content[at : at + 4] == b"OggS":
        flags, segments = content[at + 5], content[at + 26]
        at += 27 + segments + sum(content[at + 27 : at + 27 + segments])
    return bool(flags & 4) and at <= len(content)


def _mp4_boxes(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, end) of every box of the outermost level; the end of a truncated box lies beyond the content."""
    at = 0
    while at + 8 <= len(content):
        size, name, header = _u32(content, at), content[at + 4 : at + 8], 8
        if size == 1:
            size, header = int.from_bytes(content[at + 8 : at + 16], "big"), 16
        if size == 0:  # the last box reaches to the end of the file
            size = len(content) - at
        if size < header:
            yield name, at, len(content) + 1
            return
        yield name, at, at + size
        at += size


def _is_whole_mp4(content: bytes) -> bool:
    boxes = list(_mp4_boxes(content))
    return any(name == b"moov" for name, _, _ in boxes) and boxes[-1][2] <= len(content)


def _is_whole_avi(content: bytes) -> bool:
    at = 0
    while at + 8 <= len(content) and content[at : at + 4] == b"RIFF":
        size = struct.unpack_from("<I", content, at + 4)[0]
        at += 8 + size + size % 2
    return 0 < at <= len(content) + 1


def _is_whole_matroska(content: bytes) -> bool:
    at = 0
    while at < len(content):
        id_length = 9 - content[at].bit_length()
        is_segment = content[at : at + id_length] == b"\x18\x53\x80\x67"
        at += id_length
        if at >= len(content) or content[at] == 0:
            return False
        length = 9 - content[at].bit_length()
        size = int.from_bytes(content[at : at + length], "big") & ((1 << 7 * length) - 1)
        if size == (1 << 7 * length) - 1:  # unknown size: a live recording
            return is_segment
        at += length + size
    return at == len(content)
