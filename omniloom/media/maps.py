"""Maps: one or more numbers for each pixel, in the source's own units: depth, temperature, normals, flow, pressure.

Arrays come as they are. Of a picture file the stored numbers count, not what they look like: 16-bit grey PNG (most
depth cameras), 8-bit grey or RGB PNG, and TIFF of 8, 16 or 32 bits or of floats. Whatever would change a number on the
way is refused: palettes, transparency, 16-bit colour (whose low byte the decoder drops), rotation marks.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping

import numpy as np
import PIL.Image
import torch

from ..errors import MediaError
from .codes import foreign_decoder
from .formats import check_whole, require_format
from .limits import Limits
from .options import LoadOptions
from .payloads import Map
from .tables import read_npy, read_npz
from .tensors import numbers, to_float32

__all__ = ["MAP_FORMATS", "load_map"]

MAP_FORMATS = ("npy", "zip", "png", "tiff")
_BROKEN = "the map's data are broken or truncated. Save it again."
_MODES = ("L", "I", "F", "I;16", "I;16B", "I;16L", "RGB")
_ORIENTATION_TAG = 0x0112
_TAGS = 64
_TAG_BYTES = 4 << 20


def load_map(source: object, options: LoadOptions) -> Map:
    """Bytes, a Map, an array (Y, X) or (C, Y, X), nested lists, a PIL image, or {"values": array}.

    Bytes: .npy; .npz with `values`; PNG and TIFF. The axes of an array are never guessed: (C, Y, X) it is.

    Raises:
        MediaError: `unsupported_media_type`, `map_too_large`, `invalid_map`, `pickle_refused`, `unsupported_source`.
    """
    options.refuse_sampling("map")
    limits = options.limits
    if isinstance(source, Map):
        _check(source.values.shape, limits)
        return source
    if isinstance(source, bytes):
        limits.check_bytes("map", len(source))
        return _decode(source, limits)
    if isinstance(source, PIL.Image.Image):
        return _from_picture(source, limits)
    if isinstance(source, Mapping) and set(source) == {"values"}:
        return _map(numbers(source["values"], "map"), limits)
    if isinstance(source, np.ndarray | torch.Tensor | list | tuple):
        return _map(numbers(source, "map"), limits)
    message = "a map is read from a path, bytes, an array (C, Y, X) or (Y, X), nested lists or a dict with 'values'."
    raise MediaError("unsupported_source", message)


def _decode(content: bytes, limits: Limits) -> Map:
    found = require_format(content, "map", MAP_FORMATS)
    if found == "npy":
        return _map(read_npy(content, "map", limits.map_values), limits)
    if found == "zip":
        arrays = read_npz(content, "map", ("values",), 4 * limits.map_bytes, limits.map_values)
        if "values" not in arrays:
            raise MediaError("invalid_map", "the .npz file holds no array 'values'. Name the array so.")
        return _map(arrays["values"], limits)
    check_whole(content, found, "invalid_map")
    if found == "png":
        _check_png(content)
    else:
        _check_tiff(content)
    with foreign_decoder("invalid_map", _BROKEN):
        try:
            picture = PIL.Image.open(io.BytesIO(content), formats=[found.upper()])
        except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
            message = f"the map holds more than {limits.map_values} values. Scale it down first."
            raise MediaError("map_too_large", message) from None
    return _from_picture(picture, limits)


def _check_png(content: bytes) -> None:
    """Refuse depths whose numbers the decoder changes. Source: PNG specification, section 11.2.2."""
    depth, colour = (content[24], content[25]) if content[12:16] == b"IHDR" and len(content) > 25 else (0, 0)
    if (depth, colour) not in ((8, 0), (16, 0), (8, 2)):
        message = "a map in a PNG is 8-bit grey, 16-bit grey or 8-bit RGB. Save others as .npy."
        raise MediaError("invalid_map", message)


def _check_tiff(content: bytes) -> None:
    """Refuse several pages, numbers that the decoder would turn round, and a directory whose entries point at more
    bytes than a map needs: the decoder would copy each of them.

    Source: TIFF 6.0, sections 2 and 4.
    """
    order = "<" if content[:2] == b"II" else ">"
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
    with foreign_decoder("invalid_map", _BROKEN):
        (start,) = struct.unpack_from(order + "I", content, 4)
        (count,) = struct.unpack_from(order + "H", content, start)
        entries = list(struct.iter_unpack(order + "HHII", content[start + 2 : start + 2 + 12 * min(count, _TAGS)]))
        (next_page,) = struct.unpack_from(order + "I", content, start + 2 + 12 * count)
    lengths = [(sizes.get(kind, 8) * length, at) for _, kind, length, at in entries]
    if any(length > 4 and at + length > len(content) for length, at in lengths):
        raise MediaError("invalid_map", _BROKEN)
    total = sum(length for length, _ in lengths)
    if count > _TAGS or total > _TAG_BYTES:
        raise MediaError("invalid_map", "the TIFF holds more beside its pixels than a map does. Save it as .npy.")
    # A short number stands at the beginning of its four bytes.
    meaning = [
        (length, value & 0xFFFF if order == "<" else value >> 16) for tag, _, length, value in entries if tag == 262
    ]
    if next_page or meaning not in ([(1, 1)], [(1, 2)]):
        message = "a map in a TIFF is one page of grey values, larger ones lighter, or RGB. Save others as .npy."
        raise MediaError("invalid_map", message)


def _from_picture(picture: PIL.Image.Image, limits: Limits) -> Map:
    bands = len(picture.getbands())
    _check((bands, picture.height, picture.width), limits)
    if picture.mode not in _MODES:
        message = f"a picture of mode {picture.mode} is no map; expected one of {', '.join(_MODES)}. Save it as .npy."
        raise MediaError("invalid_map", message)
    with foreign_decoder("invalid_map", _BROKEN):
        picture.load()
        orientation = picture.getexif().get(_ORIENTATION_TAG, 1)
        values = np.asarray(picture)
    if orientation != 1:
        raise MediaError("invalid_map", "the map is marked as rotated. Save it upright.")
    return _map(np.moveaxis(values, -1, 0) if values.ndim == 3 else values, limits)


def _map(values: np.ndarray, limits: Limits) -> Map:
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3:
        raise MediaError("invalid_map", f"values have shape {values.shape}; expected (Y, X) or (C, Y, X).")
    _check(values.shape, limits)
    return Map(to_float32(values))


def _check(shape: tuple[int, ...], limits: Limits) -> None:
    if shape[0] > limits.map_channels or shape[0] * shape[1] * shape[2] > limits.map_values:
        most = f"at most {limits.map_values} values in {limits.map_channels} channels are read"
        raise MediaError("map_too_large", f"{shape[0]} channels of {shape[1]} x {shape[2]}; {most}. Scale it down.")
