"""Which frames of a clip are kept: one declared policy for every kind of video; nothing is cut at the end.

What may be decoded and kept is held against the limits here, before a frame is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..errors import MediaError
from .limits import Limits
from .options import LoadOptions

__all__ = ["Clip", "check_clip", "choose_times", "in_view", "plan"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Clip:
    """What the first walk found: when frames come into view (sorted), when the last one ends, and their size."""

    times_s: np.ndarray
    end_s: float
    width_px: int
    height_px: int


def choose_times(times_s: np.ndarray, end_s: float, options: LoadOptions) -> np.ndarray | None:
    """The times at which the frame in view is kept; None keeps every frame.

    - `fps`: ticks at start, start + 1/fps, ... before the end. A frame that is in view at several ticks is kept once.
    - `max_frames`, where more frames or ticks would remain: the middle one of each of so many equal parts of them.

    Args:
        times_s: when each frame comes into view, sorted; the last one stays until `end_s`.
    Raises:
        MediaError: `video_too_large`: even so, more frames than `video_frames` would be kept.
    """
    chosen_s = times_s
    if options.fps is not None and (end_s - times_s[0]) * options.fps < len(times_s):
        ticks = max(1, math.ceil((end_s - times_s[0]) * options.fps - 1e-9))
        chosen_s = times_s[0] + np.arange(ticks) / options.fps
    if options.max_frames is not None and len(chosen_s) > options.max_frames:
        parts = (np.arange(options.max_frames) + 0.5) * len(chosen_s) / options.max_frames
        chosen_s = chosen_s[parts.astype(np.int64)]
    if len(chosen_s) > options.limits.video_frames:
        most = f"at most {options.limits.video_frames} are kept"
        message = f"the video has {len(chosen_s)} frames; {most}. Choose with max_frames or fps."
        raise MediaError("video_too_large", message)
    return None if chosen_s is times_s else chosen_s


def in_view(timed: Iterable[tuple[float, _T]], times_s: np.ndarray | None) -> Iterator[tuple[float, _T]]:
    """Of (time, frame) pairs in order, those that are in view at `times_s`, each once; all of them for None."""
    if times_s is None:
        yield from timed
        return
    wanted = iter(times_s.tolist())
    want_s: float | None = next(wanted, None)
    shown: tuple[float, _T] | None = None
    for pair in timed:
        if shown is not None and want_s is not None and pair[0] > want_s + 1e-9:
            yield shown
            while want_s is not None and want_s + 1e-9 < pair[0]:
                want_s = next(wanted, None)
        if want_s is None:
            return
        shown = pair
    if shown is not None and want_s is not None:
        yield shown


def check_clip(clip: Clip, kept: int, limits: Limits) -> None:
    """Refuse a clip that is too long, too large, or of which `kept` frames would take too many decoded bytes.

    Raises:
        MediaError: `video_too_large`; `invalid_video` for a clip without frames or pixels.
    """
    if len(clip.times_s) < 1 or clip.width_px < 1 or clip.height_px < 1:
        raise MediaError("invalid_video", "the video has no frames. Fetch or convert the file again.")
    duration_s = clip.end_s - clip.times_s[0]
    if duration_s > limits.video_s:
        message = f"the video lasts over {limits.video_s:g} s, the limit. Split it, or raise video_s."
        raise MediaError("video_too_large", message)
    if len(clip.times_s) > limits.video_source_frames:
        message = f"the video has more than {limits.video_source_frames} frames to choose from. Lower its frame rate."
        raise MediaError("video_too_large", message)
    pixels = clip.width_px * clip.height_px
    if pixels > limits.video_frame_pixels:
        message = (
            f"a frame has {clip.width_px} x {clip.height_px} pixels; at most {limits.video_frame_pixels} are read."
        )
        raise MediaError("video_too_large", f"{message} Scale it down first.")
    if kept * pixels * 3 > limits.video_decoded_bytes:
        message = f"the {kept} kept frames exceed {limits.video_decoded_bytes} decoded bytes"
        raise MediaError("video_too_large", f"{message}. Keep fewer, or scale it down first.")


def plan(clip: Clip, options: LoadOptions) -> tuple[np.ndarray | None, int]:
    """(what `choose_times` says, the most frames that are kept), with the clip held against the limits."""
    check_clip(clip, 0, options.limits)
    times_s = choose_times(clip.times_s, clip.end_s, options)
    kept = len(clip.times_s) if times_s is None else len(times_s)
    check_clip(clip, kept, options.limits)
    return times_s, kept
