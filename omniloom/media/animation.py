"""Animated GIF, WebP and PNG as timed frames. A still picture is an animation of one frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import PIL.Image

from ..errors import MediaError
from .codes import foreign_decoder
from .image import open_image, to_rgb
from .limits import Limits

__all__ = ["Animation", "open_animation"]

_BROKEN = "the animation is broken or truncated. Save it again."
_DEFAULT_MS = 100.0  # what browsers show for a frame whose duration is absent or zero


@dataclass(frozen=True)
class Animation:
    """An open animation: when each frame comes into view, when the last one ends, and the size of all of them."""

    image: PIL.Image.Image
    starts_s: tuple[float, ...]
    end_s: float

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height)."""
        return self.image.size

    def frames(self) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
        """(time in seconds, pixels when asked) in order; ask before taking the next one."""
        for index, start_s in enumerate(self.starts_s):
            yield start_s, partial(self._pixels, index)

    def _pixels(self, index: int) -> np.ndarray:
        with foreign_decoder("invalid_video", _BROKEN):
            self.image.seek(index)
            return to_rgb(self.image.copy())


@contextmanager
def open_animation(content: bytes, limits: Limits) -> Iterator[Animation]:
    """Open GIF, WebP or PNG bytes and read the frames' durations.

    Raises:
        MediaError: `video_too_large` for too many or too large frames, `invalid_video` for broken data.
    """
    try:
        image = open_image(content, replace(limits, image_pixels=limits.video_frame_pixels))
    except MediaError as error:
        code = {"image_too_large": "video_too_large", "invalid_image": "invalid_video"}.get(error.code, error.code)
        raise MediaError(code, error.message) from None
    with image:
        starts_ms, end_ms = [], 0.0
        with foreign_decoder("invalid_video", _BROKEN):
            for index in range(getattr(image, "n_frames", 1)):
                if index >= limits.video_source_frames:
                    message = f"the animation has more than {limits.video_source_frames} frames. Thin it out first."
                    raise MediaError("video_too_large", message)
                image.seek(index)
                if image.format == "WEBP":  # knows a frame's duration only once it is decoded
                    image.load()
                starts_ms.append(end_ms)
                end_ms += image.info.get("duration") or _DEFAULT_MS
            image.seek(0)
        yield Animation(image, tuple(start_ms / 1000 for start_ms in starts_ms), end_ms / 1000)
