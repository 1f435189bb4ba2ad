"""Point clouds and time series: .npy, .npz, text tables, PLY, OBJ, OFF, WAV and arrays become `Points` or `Series`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from ..errors import MediaError
from .audio import load_audio
from .formats import require_format
from .limits import Limits
from .meshes import read_obj, read_off, read_ply
from .options import LoadOptions
from .payloads import Points, Series
from .tables import read_npy, read_npz, read_table
from .tensors import numbers, to_float32

__all__ = ["POINTS_FORMATS", "SERIES_FORMATS", "load_points", "load_series"]

POINTS_FORMATS = ("npy", "zip", "ply", "off", "text")
SERIES_FORMATS = ("npy", "zip", "text", "wav")
_OBJ_LINE = re.compile(rb"^v[ \t]+[-+.\d]", re.MULTILINE)


def load_points(source: object, options: LoadOptions) -> Points:
    """Bytes, Points, an array (N, 3 + C) (x, y, z, then features), or {"xyz": (N, 3), "features": (N, C)}.

    Bytes: .npy (N, 3 + C); .npz with `xyz` and perhaps `features`, or with `points` (N, 3 + C); PLY; OBJ and OFF
    meshes; text tables (.xyz, .csv) of at least three columns.

    Raises:
        MediaError: `unsupported_media_type`, `points_too_large`, `invalid_points`, `pickle_refused`,
            `unsupported_source`.
    """
    options.refuse_sampling("points")
    limits = options.limits
    if isinstance(source, Points):
        return _within_points(source, limits)
    if isinstance(source, bytes):
        limits.check_bytes("points", len(source))
        return _decode_points(source, limits)
    if isinstance(source, Mapping) and "xyz" in source and set(source) <= {"xyz", "features"}:
        return _from_xyz(source["xyz"], source.get("features"), limits)
    if isinstance(source, np.ndarray | torch.Tensor | list | tuple):
        return _split_points(numbers(source, "points"), limits)
    message = (
        "points are read from a path, bytes, an array (N, 3 + C), nested lists or a dict with 'xyz' and 'features'."
    )
    raise MediaError("unsupported_source", message)


def _decode_points(content: bytes, limits: Limits) -> Points:
    found = require_format(content, "points", POINTS_FORMATS)
    limit_values = limits.points_count * (3 + limits.points_features)
    if found == "npy":
        return _split_points(read_npy(content, "points", limit_values), limits)
    if found == "zip":
        names = ("xyz", "features", "points")
        arrays = read_npz(content, "points", names, 4 * limits.points_bytes, limit_values)
        if "xyz" in arrays:
            return _from_xyz(arrays["xyz"], arrays.get("features"), limits)
        if "points" in arrays:
            return _split_points(arrays["points"], limits)
        raise MediaError("invalid_points", "the .npz file holds neither 'xyz' nor 'points'. Name the array so.")
    if found == "ply":
        return _split_points(read_ply(content, limits.points_count), limits)
    if found == "off":
        return _split_points(read_off(content, limits.points_count), limits)
    if _OBJ_LINE.search(content, 0, 65_536):
        return _split_points(read_obj(content, limits.points_count), limits)
    return _split_points(read_table(content, "points", limit_values), limits)


def _from_xyz(xyz: object, features: object, limits: Limits) -> Points:
    xyz_N3 = numbers(xyz, "points")
    empty = np.zeros((len(xyz_N3) if xyz_N3.ndim else 0, 0), np.float32)
    features_NC = empty if features is None else numbers(features, "points")
    return _within_points(Points(to_float32(xyz_N3), to_float32(features_NC)), limits)


def _split_points(values: np.ndarray, limits: Limits) -> Points:
    if values.ndim != 2 or values.shape[1] < 3:
        message = f"points have shape {values.shape}; expected (N, 3 + C): x, y, z, then features."
        raise MediaError("invalid_points", message)
    if len(values) > limits.points_count or values.shape[1] - 3 > limits.points_features:
        _refuse_points(len(values), values.shape[1] - 3, limits)
    values = to_float32(values)
    return Points(np.ascontiguousarray(values[:, :3]), np.ascontiguousarray(values[:, 3:]))


def _within_points(points: Points, limits: Limits) -> Points:
    if len(points.xyz) > limits.points_count or points.features.shape[1] > limits.points_features:
        _refuse_points(len(points.xyz), points.features.shape[1], limits)
    return points


def _refuse_points(count: int, features: int, limits: Limits) -> None:
    most = f"at most {limits.points_count} points of {limits.points_features} features are read"
    raise MediaError("points_too_large", f"{count} points of {features} features; {most}. Thin them out first.")


def load_series(source: object, options: LoadOptions) -> Series:
    """Bytes, a Series, an array (T,) or (T, C), nested lists, or {"values": array, "rate_hz": number or None}.

    Bytes: .npy; .npz with `values` and perhaps `rate_hz`; text tables (.csv, .tsv), one row per step; WAV, whose
    channels become columns. Tables and .npy know no rate: `rate_hz` is None.

    Raises:
        MediaError: `unsupported_media_type`, `series_too_large`, `invalid_series`, `pickle_refused`,
            `unsupported_source`.
    """
    options.refuse_sampling("series")
    limits = options.limits
    if isinstance(source, Series):
        _check_series(source.values.shape, limits)
        return source
    if isinstance(source, bytes):
        limits.check_bytes("series", len(source))
        return _decode_series(source, limits)
    if isinstance(source, Mapping) and "values" in source and set(source) <= {"values", "rate_hz"}:
        return _series(numbers(source["values"], "series"), source.get("rate_hz"), limits)
    if isinstance(source, np.ndarray | torch.Tensor | list | tuple):
        return _series(numbers(source, "series"), None, limits)
    message = (
        "a series is read from a path, bytes, an array (T, C), nested lists or a dict with 'values' and 'rate_hz'."
    )
    raise MediaError("unsupported_source", message)


def _decode_series(content: bytes, limits: Limits) -> Series:
    found = require_format(content, "series", SERIES_FORMATS)
    if found == "npy":
        return _series(read_npy(content, "series", limits.series_values), None, limits)
    if found == "text":
        return _series(read_table(content, "series", limits.series_values), None, limits)
    if found == "wav":
        return _from_wav(content, limits)
    arrays = read_npz(content, "series", ("values", "rate_hz"), 4 * limits.series_bytes, limits.series_values)
    if "values" not in arrays:
        raise MediaError("invalid_series", "the .npz file holds no array 'values'. Name the array so.")
    rate = arrays.get("rate_hz")
    if rate is not None and rate.size != 1:
        raise MediaError("invalid_series", "rate_hz of the .npz file is not one number.")
    return _series(arrays["values"], None if rate is None else float(rate.reshape(-1)[0]), limits)


def _from_wav(content: bytes, limits: Limits) -> Series:
    # A sensor's WAV may be as slow as one step per second; its bound is the number of values, not the seconds.
    wide = replace(
        limits,
        audio_bytes=limits.series_bytes,
        audio_decoded_bytes=4 * limits.series_values,
        audio_s=limits.series_values,
        audio_min_rate_hz=1,
        audio_channels=limits.series_channels,
    )
    try:
        sound = load_audio(content, LoadOptions(wide))
    except MediaError as error:
        codes = {"audio_too_large": "series_too_large", "audio_too_long": "series_too_large"}
        raise MediaError(codes.get(error.code, "invalid_series"), error.message) from None
    return _series(sound.samples.T, sound.rate_hz, limits)


def _series(values: np.ndarray, rate_hz: object, limits: Limits) -> Series:
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2:
        raise MediaError("invalid_series", f"values have shape {values.shape}; expected (T,) or (T, C).")
    _check_series(values.shape, limits)
    if rate_hz is not None and (isinstance(rate_hz, bool) or not isinstance(rate_hz, int | float | np.number)):
        raise MediaError("invalid_series", "rate_hz must be a number or None.")
    return Series(to_float32(values), None if rate_hz is None else float(rate_hz))


def _check_series(shape: tuple[int, ...], limits: Limits) -> None:
    if shape[0] * shape[1] > limits.series_values or shape[1] > limits.series_channels:
        most = f"at most {limits.series_values} values in {limits.series_channels} channels are read"
        raise MediaError("series_too_large", f"{shape[0]} steps of {shape[1]} channels; {most}. Send fewer.")
