"""Typed media: what every other room gets instead of files.

A payload is checked when it is made, so whoever holds one need not check again: shapes, dtypes, rates, finite numbers.
Letters in shapes: Y, X picture height and width; C channels; S audio samples; F frames; N points; T steps of a series.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import soxr

from ..errors import MediaError

__all__ = ["Audio", "Image", "Map", "Payload", "Points", "Series", "Video"]


def _require(is_right: bool, code: str, message: str) -> None:
    if not is_right:
        raise MediaError(code, message)


def _require_array(array: object, dtype: type, rank: int, what: str, layout: str, code: str) -> None:
    _require(isinstance(array, np.ndarray), code, f"{what} must be a numpy array {layout} of {np.dtype(dtype)}.")
    assert isinstance(array, np.ndarray)
    is_right = array.dtype == np.dtype(dtype) and array.ndim == rank
    _require(
        is_right,
        code,
        f"{what} have shape {array.shape} and dtype {array.dtype}; expected {layout} of {np.dtype(dtype)}.",
    )


def _require_rate(rate_hz: object, code: str) -> None:
    is_number = isinstance(rate_hz, int | float) and not isinstance(rate_hz, bool)
    is_right = is_number and 0 < float(rate_hz) < float("inf")  # type: ignore[arg-type]
    _require(is_right, code, "rate_hz must be a finite number above zero.")


def _is_finite(array: np.ndarray) -> bool:
    # min and max see every NaN and infinity without a boolean copy of the array.
    return array.size == 0 or bool(np.isfinite(array.min()) and np.isfinite(array.max()))


@dataclass(frozen=True, eq=False)
class Payload:
    """One medium in memory. Two payloads hold the same content exactly if their digests are equal.

    A registered kind derives from this class, sets `kind`, and is a frozen dataclass of arrays, numbers, None and
    payloads.
    """

    kind: ClassVar[str] = ""

    def digest(self) -> str:
        """sha256 (hex) over kind, field names, shapes, dtypes, rates and contents.

        Shapes and dtypes are part of it, so that equal bytes of another shape never share a cache entry.
        """
        sha = hashlib.sha256(f"omniloom.media/1 {self.kind}\n".encode())
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if isinstance(value, np.ndarray):
                contents = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
                sha.update(f"{name} {contents.dtype.str} {value.shape}\n".encode())
                sha.update(contents.reshape(-1).view(np.uint8).data)
            elif isinstance(value, Payload):
                sha.update(f"{name} {value.digest()}\n".encode())
            else:
                sha.update(f"{name} {json.dumps(value)}\n".encode())
        return sha.hexdigest()


@dataclass(frozen=True, eq=False)
class Image(Payload):
    """A picture: `pixels` uint8 (Y, X, 3), RGB, upright. At least one pixel."""

    kind: ClassVar[str] = "image"
    pixels: np.ndarray

    def __post_init__(self) -> None:
        _require_array(self.pixels, np.uint8, 3, "pixels", "(Y, X, 3)", "invalid_image")
        is_right = self.pixels.shape[2] == 3 and self.pixels.size > 0
        _require(
            is_right,
            "invalid_image",
            f"pixels have shape {self.pixels.shape}; expected (Y, X, 3) with Y, X above zero.",
        )


@dataclass(frozen=True, eq=False)
class Audio(Payload):
    """A sound: `samples` float32 (C, S), nominally in -1..1, finite, at least one sample; `rate_hz` per second."""

    kind: ClassVar[str] = "audio"
    samples: np.ndarray
    rate_hz: int

    def __post_init__(self) -> None:
        _require_array(self.samples, np.float32, 2, "samples", "(C, S)", "invalid_audio")
        _require_rate(self.rate_hz, "invalid_audio")
        _require(isinstance(self.rate_hz, int), "invalid_audio", "rate_hz of a sound must be a whole number.")
        _require(
            self.samples.size > 0,
            "invalid_audio",
            f"samples have shape {self.samples.shape}; a sound needs one sample.",
        )
        _require(_is_finite(self.samples), "invalid_audio", "samples hold NaN or infinity. Repair the recording first.")

    @property
    def duration_s(self) -> float:
        """Seconds from the first sample to the end of the last."""
        return self.samples.shape[1] / self.rate_hz

    def mono(self, rate_hz: int) -> np.ndarray:
        """The mean of the channels at `rate_hz`: float32 (S,), S nearest to duration_s * rate_hz but at least 1.

        Resampled by soxr's high quality filter: band-limited, linear phase, no delay.
        """
        _require_rate(rate_hz, "invalid_audio")
        mono_S = self.samples.mean(axis=0, dtype=np.float32)
        if rate_hz == self.rate_hz:
            return mono_S
        resampled_S = soxr.resample(mono_S, self.rate_hz, rate_hz, quality="HQ").astype(np.float32, copy=False)
        # Shorter than half a sample at the new rate: the resampler returns nothing, but a sound is never empty.
        return resampled_S if resampled_S.size else mono_S[:1]


@dataclass(frozen=True, eq=False)
class Video(Payload):
    """Timed frames: `frames` uint8 (F, Y, X, 3), `times_s` float64 (F,), and the sound beside them; None without sound.

    Time zero is the earlier of first source frame and first sound sample; a frame stays in view until the next one's
    time.
    """

    kind: ClassVar[str] = "video"
    frames: np.ndarray
    times_s: np.ndarray
    audio: Audio | None = None

    def __post_init__(self) -> None:
        code = "invalid_video"
        _require_array(self.frames, np.uint8, 4, "frames", "(F, Y, X, 3)", code)
        _require_array(self.times_s, np.float64, 1, "times_s", "(F,)", code)
        is_right = self.frames.shape[3] == 3 and self.frames.size > 0
        _require(
            is_right, code, f"frames have shape {self.frames.shape}; expected (F, Y, X, 3) with F, Y, X above zero."
        )
        n_frames, n_times = len(self.frames), len(self.times_s)
        _require(n_frames == n_times, code, f"{n_frames} frames but {n_times} times; each frame needs one time.")
        is_right = _is_finite(self.times_s) and self.times_s[0] >= 0 and bool((np.diff(self.times_s) >= 0).all())
        _require(is_right, code, "times_s must be finite, start at zero or later, and never run backwards.")
        _require(
            self.audio is None or isinstance(self.audio, Audio), code, "audio of a video must be an Audio or None."
        )


@dataclass(frozen=True, eq=False)
class Points(Payload):
    """A point cloud: `xyz` float32 (N, 3) in the source's unit, `features` float32 (N, C); N >= 1, C >= 0, finite."""

    kind: ClassVar[str] = "points"
    xyz: np.ndarray
    features: np.ndarray

    def __post_init__(self) -> None:
        code = "invalid_points"
        _require_array(self.xyz, np.float32, 2, "xyz", "(N, 3)", code)
        _require_array(self.features, np.float32, 2, "features", "(N, C)", code)
        is_right = self.xyz.shape[1] == 3 and len(self.xyz) > 0
        _require(is_right, code, f"xyz have shape {self.xyz.shape}; expected (N, 3) with N above zero.")
        n_xyz, n_features = len(self.xyz), len(self.features)
        _require(n_xyz == n_features, code, f"{n_xyz} positions but {n_features} rows of features; they must be equal.")
        is_right = _is_finite(self.xyz) and _is_finite(self.features)
        _require(is_right, code, "points hold NaN or infinity. Drop those points first.")


@dataclass(frozen=True, eq=False)
class Series(Payload):
    """A time series: `values` float32 (T, C), finite, T, C >= 1; `rate_hz` steps per second, None if unknown."""

    kind: ClassVar[str] = "series"
    values: np.ndarray
    rate_hz: float | None = None

    def __post_init__(self) -> None:
        _require_array(self.values, np.float32, 2, "values", "(T, C)", "invalid_series")
        _require(
            self.values.size > 0, "invalid_series", f"values have shape {self.values.shape}; a series needs one value."
        )
        if self.rate_hz is not None:
            _require_rate(self.rate_hz, "invalid_series")
            object.__setattr__(self, "rate_hz", float(self.rate_hz))  # 50 and 50.0 are one rate and have one digest
        _require(_is_finite(self.values), "invalid_series", "values hold NaN or infinity. Fill the gaps first.")

    @property
    def duration_s(self) -> float | None:
        """Seconds from the first step to the end of the last; None without a rate."""
        return None if self.rate_hz is None else len(self.values) / self.rate_hz


@dataclass(frozen=True, eq=False)
class Map(Payload):
    """One or more numbers for each pixel: `values` float32 (C, Y, X) in the source's units, finite, C, Y, X >= 1.

    Depth in metres or millimetres, temperature, surface normals, optical flow, pressure of a touch.
    """

    kind: ClassVar[str] = "map"
    values: np.ndarray

    def __post_init__(self) -> None:
        _require_array(self.values, np.float32, 3, "values", "(C, Y, X)", "invalid_map")
        _require(self.values.size > 0, "invalid_map", f"values have shape {self.values.shape}; a map needs one value.")
        _require(_is_finite(self.values), "invalid_map", "values hold NaN or infinity. Set missing ones to 0 first.")
