"""Which frames of a clip an encoder sees: so many evenly over the whole, or so many a second in windows."""

from __future__ import annotations

import math

import numpy as np

from omniloom.errors import ConfigError, MediaError
from omniloom.media import Video

__all__ = ["check_frames", "chosen_frames", "frame_begins", "frame_windows"]


def check_frames(frames: int | None, rate_hz: float | None) -> None:
    """Refuse a choice of frames that leaves none.

    Raises:
        ConfigError: no frame, or a rate that is not above zero or stands without `frames`.
    """
    if (frames is not None and frames < 1) or (rate_hz is not None and (frames is None or rate_hz <= 0)):
        raise ConfigError(f"frames={frames}, rate_hz={rate_hz}: no frame is left. Set frames to 1 or more.")


def chosen_frames(video: Video, frames: int, rate_hz: float | None, *, exact: bool = False) -> np.ndarray:
    """The (F, Y, X, 3) frames: at `rate_hz` those in view, or without a rate `frames` evenly, all of a shorter clip.

    `exact`: always `frames` of them: of a shorter clip some are there more than once, at a rate the last one.

    Raises:
        MediaError: video_too_large, a clip longer than `frames` at `rate_hz`; nothing is ever cut silently.
    """
    if rate_hz is None:
        count = frames if exact else min(frames, len(video.frames))
        # The middle of each of `count` equal parts.
        return video.frames[((np.arange(count) + 0.5) * len(video.frames) / count).astype(int)]
    total = _count(video, rate_hz)
    if total > frames:
        raise MediaError(
            "video_too_large",
            f"the clip has {total} frames at {rate_hz:g} Hz; expected {frames} at most. Set `windows: true` beside the "
            "processor, which cuts it into several items, more `frames` or a lower `rate_hz`.",
        )
    return video.frames[_in_view(video, np.arange(frames if exact else total) / rate_hz)]


def frame_windows(video: Video, frames: int, rate_hz: float | None) -> list[Video]:
    """Windows that `frames` frames at `rate_hz` cover, each from time zero and without sound."""
    if rate_hz is None or _count(video, rate_hz) <= frames:
        return [video]
    total, windows = _count(video, rate_hz), []
    for first in range(0, total, frames):
        marks = np.arange(first, min(first + frames, total)) / rate_hz
        windows.append(Video(video.frames[_in_view(video, marks)], marks - marks[0]))
    return windows


def frame_begins(video: Video, frames: int, rate_hz: float | None) -> list[float]:
    """When each of `frame_windows` begins, in seconds from the start of the clip."""
    if rate_hz is None:
        return [0.0]
    return [first / rate_hz for first in range(0, _count(video, rate_hz), frames)]


def _count(video: Video, rate_hz: float) -> int:
    return math.floor(float(video.times_s[-1]) * rate_hz + 1e-6) + 1


def _in_view(video: Video, marks_s: np.ndarray) -> np.ndarray:
    return np.clip(np.searchsorted(video.times_s, marks_s + 1e-6, side="right") - 1, 0, None)
