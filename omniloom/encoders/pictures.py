"""Raw tensors of pictures: one, several frames, or a bundle of a whole picture and its tiles."""

from __future__ import annotations

from torch import Tensor

from omniloom.encoders.checks import refuse_raw
from omniloom.sequence import Bundle, Raw, Shape

__all__ = ["picture_shape", "pictures_of"]


def pictures_of(raw: Raw) -> Tensor:
    """(F, C, Y, X) of a raw tensor (C, Y, X) or (F, C, Y, X), or of a bundle's `pixels`."""
    pixels = raw["pixels"] if isinstance(raw, Bundle) else raw
    return pixels if pixels.dim() == 4 else pixels[None]


def picture_shape(part: object, index: int, raw: Raw, channels: int, remedy: str) -> Shape:
    """Pixels on the grid (F, Y, X), as the processors say it; a bundle's `mosaic` of rows, columns, height and width.

    Raises:
        ShapeError: another rank or number of channels, nothing in it, or a bundle of other names.
    """
    expected = f"({channels}, Y, X), (F, {channels}, Y, X), or a bundle of such `pixels` and their `mosaic`"
    if isinstance(raw, Bundle):
        is_right = set(raw) == {"pixels", "mosaic"} and raw["mosaic"].shape == (4,) and raw["pixels"].dim() == 4
        if not is_right:
            raise refuse_raw(part, index, raw, expected, remedy)
    pixels = raw["pixels"] if isinstance(raw, Bundle) else raw
    if pixels.dim() not in (3, 4) or pixels.shape[-3] != channels or 0 in pixels.shape:
        raise refuse_raw(part, index, raw, expected, remedy)
    frames, height, width = pixels.shape[0] if pixels.dim() == 4 else 1, pixels.shape[-2], pixels.shape[-1]
    mosaic = None
    if isinstance(raw, Bundle) and int(raw["mosaic"][0]):
        rows, columns, y, x = (int(number) for number in raw["mosaic"])
        mosaic = rows, columns, y, x
    return Shape(frames * height * width, (frames, height, width), mosaic=mosaic)
