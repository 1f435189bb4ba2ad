"""How large one item may be: every bound of the gateway, as one frozen record.

Each bound is held twice: against what a header declares, before anything is allocated, and against what is really
decoded, while it is decoded. Raise a bound with `dataclasses.replace(Limits(), video_s=3600)`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields

from ..errors import ConfigError, MediaError
from .codes import too_large

__all__ = ["Limits", "check_parts"]

_MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bounds of one item. Bytes are encoded bytes unless the name says decoded.

    `video_frames` bounds the frames that are kept; `video_source_frames` those that are decoded to choose them from.
    `image_parts`, `audio_parts`, `video_parts`: items of that kind in one request, see `check_parts`.

    Raises:
        ConfigError: a bound is not a positive number; zero or less would refuse everything or nothing.
    """

    image_bytes: int = 20 * _MIB
    image_pixels: int = 50_000_000
    image_side_px: int = 16_384

    audio_bytes: int = 25 * _MIB
    audio_s: float = 600.0
    audio_decoded_bytes: int = 256 * _MIB
    audio_min_rate_hz: int = 4_000
    audio_max_rate_hz: int = 192_000
    audio_channels: int = 8

    video_bytes: int = 64 * _MIB
    video_s: float = 600.0
    video_frames: int = 256
    video_source_frames: int = 36_000
    video_frame_pixels: int = 9_000_000
    video_decoded_bytes: int = 1024 * _MIB

    points_bytes: int = 64 * _MIB
    points_count: int = 2_000_000
    points_features: int = 256

    series_bytes: int = 64 * _MIB
    series_values: int = 16_000_000
    series_channels: int = 4_096

    map_bytes: int = 64 * _MIB
    map_values: int = 16_000_000
    map_channels: int = 64

    media_bytes: int = 64 * _MIB

    image_parts: int = 64
    audio_parts: int = 16
    video_parts: int = 4

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigError(f"limit {field.name!r} is {value!r}; expected a number above zero.")

    def encoded_bytes(self, kind: str) -> int:
        """The most encoded bytes of one item of `kind`; registered kinds share `media_bytes`."""
        return getattr(self, f"{kind}_bytes", self.media_bytes)

    def check_bytes(self, kind: str, size: int) -> None:
        """Refuse `size` encoded bytes of `kind` if they are too many."""
        limit = self.encoded_bytes(kind)
        if size > limit:
            raise MediaError(too_large(kind), f"{kind} of {size} bytes; at most {limit} are read. Send a smaller file.")


def check_parts(kinds: Iterable[str], limits: Limits) -> None:
    """Refuse a request that carries more items of one kind than the limits allow.

    Args:
        kinds: the kind of every item, in any order. A kind without an own bound is not counted.
    Raises:
        MediaError: `too_many_parts`, naming the kind, the count and the limit.
    """
    for kind, count in sorted(Counter(kinds).items()):
        limit: int | None = getattr(limits, f"{kind}_parts", None)
        if limit is not None and count > limit:
            raise MediaError("too_many_parts", f"{count} items of kind {kind!r}; the limit is {limit}. Send fewer.")
