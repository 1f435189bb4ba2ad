"""Pictures: PNG, JPEG, WebP and GIF bytes, PIL images and arrays become `Image`.

One rule turns every colour mode into RGB, so that the same picture gives the same pixels however it was stored:
- transparency (RGBA, LA, PA, a palette or a colour marked transparent) is laid over white;
- 16-bit grey is scaled, v / 257, rounded; 16-bit colour keeps its high byte (the decoder's own rule);
- CMYK goes through the decoder's plain conversion; embedded colour profiles are not applied;
- the EXIF orientation is applied once, and the payload carries no orientation any more.
An animation gives its first frame. The size is checked from the header before a pixel is allocated.
"""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import torch

from ..errors import MediaError
from .codes import foreign_decoder
from .formats import check_whole, require_format
from .limits import Limits
from .options import LoadOptions
from .payloads import Image
from .tensors import to_numpy

__all__ = ["IMAGE_FORMATS", "array_to_pixels", "check_size", "load_image", "open_image", "to_rgb"]

IMAGE_FORMATS = ("png", "jpeg", "webp", "gif")
_BROKEN = "the image data are broken or truncated. Save the picture again."
_ORIENTATION_TAG = 0x0112
_TRANSPOSES = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}


def load_image(source: object, options: LoadOptions) -> Image:
    """Bytes, an Image, a PIL image, or a uint8 / uint16 / bool array (Y, X), (Y, X, 1), (Y, X, 3) or (Y, X, 4).

    The axes of an array are never guessed from its shape: (Y, X, C) it is, also for torch tensors.

    Raises:
        MediaError: `unsupported_media_type`, `image_too_large`, `invalid_image`, `unsupported_source`.
    """
    options.refuse_sampling("image")
    limits = options.limits
    if isinstance(source, Image):
        check_size(source.pixels.shape[1], source.pixels.shape[0], limits)
        return source
    if isinstance(source, bytes):
        limits.check_bytes("image", len(source))
        return Image(to_rgb(open_image(source, limits)))
    if isinstance(source, PIL.Image.Image):
        check_size(*source.size, limits)
        return Image(to_rgb(source))
    if isinstance(source, np.ndarray | torch.Tensor):
        return Image(array_to_pixels(source, limits))
    message = "an image is read from a path, bytes, a data URI, a PIL image or an array (Y, X, 3) of uint8."
    raise MediaError("unsupported_source", message)


def check_size(width_px: int, height_px: int, limits: Limits) -> None:
    """Refuse a picture without pixels, or with too many of them."""
    if width_px < 1 or height_px < 1:
        raise MediaError("invalid_image", f"the image is {width_px} x {height_px} pixels; at least 1 x 1 is needed.")
    if max(width_px, height_px) > limits.image_side_px or width_px * height_px > limits.image_pixels:
        got = f"the image is {width_px} x {height_px} pixels"
        most = f"at most {limits.image_pixels} pixels and {limits.image_side_px} along a side are read"
        raise MediaError("image_too_large", f"{got}; {most}. Scale it down first.")


def open_image(content: bytes, limits: Limits) -> PIL.Image.Image:
    """Open by content, with the size checked and nothing decoded yet."""
    found = require_format(content, "image", IMAGE_FORMATS)
    check_whole(content, found, "invalid_image")
    if found == "webp":  # its decoder allocates the canvas on opening
        check_size(*_webp_size(content), limits)
    # Compressed text and colour profiles of a PNG are unpacked here; the decoder stops them at 1 MiB each, 64 MiB in
    # all.
    with foreign_decoder("invalid_image", _BROKEN):
        try:
            image = PIL.Image.open(io.BytesIO(content), formats=[found.upper()])
        except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
            raise MediaError("image_too_large", f"the image has more than {limits.image_pixels} pixels.") from None
    check_size(*image.size, limits)
    return image


def _webp_size(content: bytes) -> tuple[int, int]:
    """Width and height of the canvas from the first chunk; (0, 0) if there is none. Source: RFC 9649, section 2."""
    chunk, body = content[12:16], content[20:30]
    if len(body) == 10 and chunk == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if len(body) == 10 and chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if len(body) == 10 and chunk == b"VP8 ":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return 0, 0


def to_rgb(image: PIL.Image.Image) -> np.ndarray:
    """Decode into upright RGB pixels, uint8 (Y, X, 3), by the rule at the top of this file."""
    with foreign_decoder("invalid_image", _BROKEN):
        image.load()
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
        image = _flatten(image)
        if orientation in _TRANSPOSES:
            image = image.transpose(_TRANSPOSES[orientation])
        return np.array(image, dtype=np.uint8)


def _flatten(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        values_YX = np.asarray(image)
        # Mode I holds 16-bit grey in 32 bits; mode F and larger integers have no known white.
        if image.mode == "F" or values_YX.min() < 0 or values_YX.max() > 65535:
            message = "grey values lie outside 16 bits. Scale the picture to uint8 first."
            raise MediaError("invalid_image", message)
        return PIL.Image.fromarray(_to_8_bits(values_YX)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        over = image.convert("RGBA")
        return PIL.Image.alpha_composite(PIL.Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def array_to_pixels(array: np.ndarray | torch.Tensor, limits: Limits) -> np.ndarray:
    """An array (Y, X), (Y, X, 1), (Y, X, 3) or (Y, X, 4) as uint8 (Y, X, 3), by the same rule as files."""
    values = to_numpy(array)
    channels = 1 if values.ndim == 2 else values.shape[2] if values.ndim == 3 else 0
    if channels not in (1, 3, 4):
        message = (
            f"the array has shape {values.shape}; expected (Y, X), (Y, X, 1), (Y, X, 3) or (Y, X, 4). Transpose it."
        )
        raise MediaError("invalid_image", message)
    check_size(values.shape[1], values.shape[0], limits)
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * np.uint8(255)
    elif values.dtype == np.uint16:
        values = _to_8_bits(values)
    elif values.dtype != np.uint8:
        message = f"the array has dtype {values.dtype}; expected uint8, uint16 or bool. Scale to 0..255 and cast first."
        raise MediaError("invalid_image", message)
    if channels == 1:
        return np.repeat(values.reshape(*values.shape[:2], 1), 3, axis=2)
    if channels == 4:
        return np.array(_flatten(PIL.Image.fromarray(np.ascontiguousarray(values))), dtype=np.uint8)
    return np.array(values)
