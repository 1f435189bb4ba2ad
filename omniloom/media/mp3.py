"""Whether an MP3 is whole. It has no size field, so its frames are walked; a decoder would quietly give less.

Decoding is not done here: libsndfile takes the length of a variable-rate file without a length header from its mean bit
rate, and gave 0.3 s of a sound of 2 s (measured), so MP3 is decoded packet by packet like the sound of a video.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["frame_ends", "is_whole_mp3"]

_BIT_RATES = {  # kbit/s by (is version 1, layer); ISO 11172-3 table 2.4.2.3 and 13818-3
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def frame_ends(content: bytes, start: int) -> Iterator[int]:
    """Where each of a run of MP3 frames ends, in bytes, until something else comes."""
    while start + 4 <= len(content) and content[start] == 0xFF and content[start + 1] & 0xE0 == 0xE0:
        version, layer = content[start + 1] >> 3 & 3, 4 - (content[start + 1] >> 1 & 3)
        bit_rate, rate, padding = content[start + 2] >> 4, content[start + 2] >> 2 & 3, content[start + 2] >> 1 & 1
        if version == 1 or layer not in (2, 3) or bit_rate in (0, 15) or rate == 3:
            return
        factor = 144_000 if version == 3 or layer == 2 else 72_000
        end = start + factor * _BIT_RATES[version == 3, layer][bit_rate] // _RATES_HZ[version][rate] + padding
        yield end
        start = end


def is_whole_mp3(content: bytes) -> bool:
    """Whether the run of frames ends inside `content`, with as many frames as its length header, if any, counts."""
    start = 0
    if content[:3] == b"ID3":  # four times seven bits of size (ID3v2.4, section 3.1)
        start = (
            10 + sum((content[6 + i] & 0x7F) << 7 * (3 - i) for i in range(4)) if len(content) >= 10 else len(content)
        )
    ends = list(frame_ends(content, start))
    if not ends or ends[-1] > len(content):
        return False
    head = content[start : ends[0]]
    at = max(head.find(b"Xing", 4, 64), head.find(b"Info", 4, 64))
    if at < 0 or not head[at + 7] & 1:
        return True
    return len(ends) - 1 >= int.from_bytes(head[at + 8 : at + 12], "big")
