"""Payloads to bytes and files, for reports and generated answers. What is written reads back equal through `load`.

kind     suffixes            reads back
image    .png                exactly
audio    .wav (16-bit PCM)   within one 16-bit step; beyond -1..1 it is clipped
video    .npz                exactly, with times and sound
         .webp (animation)   frames exactly, times to the millisecond; has no sound
points   .npy, .npz          exactly
series   .npz, .npy          exactly; .npy knows no rate, so a series with a rate needs .npz
map      .npy, .npz          exactly
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import soundfile

from ..errors import MediaError, did_you_mean
from ..files import write_whole
from .payloads import Audio, Image, Map, Payload, Points, Series, Video

__all__ = ["audio_to_wav_bytes", "image_to_png_bytes", "save", "suffix_of", "to_data_uri"]


def image_to_png_bytes(image: Image) -> bytes:
    """The image as PNG, without metadata: the same pixels give the same bytes."""
    out = io.BytesIO()
    PIL.Image.fromarray(image.pixels).save(out, "PNG")
    return out.getvalue()


def audio_to_wav_bytes(audio: Audio) -> bytes:
    """The sound as 16-bit PCM WAV with its own rate and channels; 1.0 is 32767, what lies beyond -1..1 is clipped."""
    out = io.BytesIO()
    pcm_CS = np.clip(np.round(audio.samples.astype(np.float64) * 32768), -32768, 32767).astype(np.int16)
    soundfile.write(out, pcm_CS.T, audio.rate_hz, format="WAV", subtype="PCM_16")
    return out.getvalue()


def _npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


def _npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, allow_pickle=False, **arrays)
    return out.getvalue()


def _points_to_npy(points: Points) -> bytes:
    return _npy(np.concatenate([points.xyz, points.features], axis=1))


def _points_to_npz(points: Points) -> bytes:
    return _npz(xyz=points.xyz, features=points.features)


def _series_to_npy(series: Series) -> bytes:
    if series.rate_hz is not None:
        raise MediaError("unsupported_target", f".npy would lose the rate of {series.rate_hz:g} Hz. Save as .npz.")
    return _npy(series.values)


def _series_to_npz(series: Series) -> bytes:
    rate = {} if series.rate_hz is None else {"rate_hz": np.asarray(series.rate_hz, np.float64)}
    return _npz(values=series.values, **rate)


def _map_to_npy(payload: Map) -> bytes:
    return _npy(payload.values)


def _map_to_npz(payload: Map) -> bytes:
    return _npz(values=payload.values)


def _video_to_npz(video: Video) -> bytes:
    sound = {}
    if video.audio is not None:
        sound = {"samples": video.audio.samples, "rate_hz": np.asarray(video.audio.rate_hz, np.int64)}
    return _npz(frames=video.frames, times_s=video.times_s, **sound)


def _video_to_webp(video: Video) -> bytes:
    if video.audio is not None:
        raise MediaError("unsupported_target", ".webp holds no sound. Save as .npz, or save the sound beside it.")
    starts_ms = np.round(video.times_s * 1000).astype(int)
    lengths_ms = np.diff(starts_ms)
    last_ms = int(np.median(lengths_ms)) if len(lengths_ms) else 100
    out = io.BytesIO()
    first, *others = [PIL.Image.fromarray(frame) for frame in video.frames]
    durations = [max(1, int(length)) for length in [*lengths_ms, last_ms]]
    first.save(
        out, "WEBP", save_all=True, append_images=others, duration=durations, lossless=True, loop=0, minimize_size=False
    )
    return out.getvalue()


# kind -> suffix -> (media type, writer); the first suffix of a kind is the one of its data URIs.
_WRITERS: dict[str, dict[str, tuple[str, Callable[..., bytes]]]] = {
    "image": {".png": ("image/png", image_to_png_bytes)},
    "audio": {".wav": ("audio/wav", audio_to_wav_bytes)},
    "video": {".webp": ("image/webp", _video_to_webp), ".npz": ("application/octet-stream", _video_to_npz)},
    "points": {
        ".npy": ("application/octet-stream", _points_to_npy),
        ".npz": ("application/octet-stream", _points_to_npz),
    },
    "series": {
        ".npz": ("application/octet-stream", _series_to_npz),
        ".npy": ("application/octet-stream", _series_to_npy),
    },
    "map": {
        ".npy": ("application/octet-stream", _map_to_npy),
        ".npz": ("application/octet-stream", _map_to_npz),
    },
}


def _writers_of(payload: Payload) -> dict[str, tuple[str, Callable[..., bytes]]]:
    if payload.kind not in _WRITERS:
        raise MediaError(
            "unsupported_target", f"no writer for kind {payload.kind!r}.{did_you_mean(payload.kind, _WRITERS)}"
        )
    return _WRITERS[payload.kind]


def suffix_of(payload: Payload) -> str:
    """The suffix of the format a payload's kind is written in by default, such as ".png"."""
    return next(iter(_writers_of(payload)))


def save(payload: Payload, path: str | os.PathLike[str]) -> Path:
    """Write `payload` in the format of the suffix of `path` (see the top of this file), and return the path.

    The file appears whole or not at all: it is written beside its place and moved there.

    Raises:
        MediaError: `unsupported_target`: the kind has no such format, or the format would lose a part of the payload.
    """
    path = Path(path)
    writers = _writers_of(payload)
    suffix = path.suffix.lower()
    if suffix not in writers:
        raise MediaError(
            "unsupported_target", f"cannot write {payload.kind} as {suffix!r}.{did_you_mean(suffix, writers)}"
        )
    write_whole(path, writers[suffix][1](payload))
    return path


def to_data_uri(payload: Payload) -> str:
    """The payload as a `data:` URI in the first format of its kind, for HTML reports and `load`."""
    media_type, writer = next(iter(_writers_of(payload).values()))
    return f"data:{media_type};base64,{base64.b64encode(writer(payload)).decode('ascii')}"
