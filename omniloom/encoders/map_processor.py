"""Maps as pictures of numbers: clipped to a range, perhaps as logarithm or reciprocal, scaled, at one size.

Published systems read depth, heat, normals, flow and touch by encoders of pictures. ImageBind (arXiv:2305.05665) takes
disparity, the reciprocal of depth, and one channel of heat; OneLLM (arXiv:2312.03700) repeats depth to three channels;
CREMA (arXiv:2402.05889) reads depth, flow and normals by its picture encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from omniloom.encoders.augment import shift_picture, uniform
from omniloom.encoders.base import Processor
from omniloom.encoders.payload_checks import require_payload
from omniloom.errors import ConfigError, MediaError
from omniloom.media import Map
from omniloom.media.transforms import center_crop, normalize, resize_image
from omniloom.sequence import Shape

__all__ = ["MapProcessor"]

_TINY = 1e-6


class MapProcessor(Processor):
    """Map of C channels to raw (C, size_px, size_px), or (3, size_px, size_px) of one channel with `channels: 3`.

    In this order: clip, take the logarithm or reciprocal, scale, resize, subtract `mean` and divide by `std`.

    Args:
        size_px: side of the square.
        crop: scale the shorter side to `size_px` and take the middle; False squeezes the whole map into the square.
        channels: None keeps the map's; 1 or 3 require so many, and 3 repeats the one of a map that has one.
        low, high: numbers beyond are set to these, in the map's units; None leaves that side open.
        values: "linear"; "log", the natural logarithm; "inverse", the reciprocal, as disparity is of depth. Zero and
            less, which depth cameras write where they see nothing, are "missing": they become the least value of the
            item after it (the farthest for "inverse", the nearest for "log").
        scale: "range", `low` to `high` becomes 0 to 1, which needs both; "item", the item's own least and largest
            number become 0 and 1; "none" leaves the numbers.
        smooth: resize by bicubic interpolation; False by the nearest number, which invents none between two objects.
        mean, std: one number, or one per channel, after scaling.
        flip: with an rng, mirror left to right in half of the draws; leave it off where numbers have directions.
        shift_px: with an rng, move by up to so many pixels.
    Raises:
        ConfigError: options that cannot be together.
    """

    payload_kind = "map"

    def __init__(
        self,
        *,
        size_px: int = 32,
        crop: bool = False,
        channels: Literal[1, 3] | None = None,
        low: float | None = None,
        high: float | None = None,
        values: Literal["linear", "log", "inverse"] = "linear",
        scale: Literal["range", "item", "none"] = "item",
        smooth: bool = True,
        mean: float | Sequence[float] = 0.5,
        std: float | Sequence[float] = 0.5,
        flip: bool = False,
        shift_px: int = 0,
    ) -> None:
        if size_px < 1 or shift_px < 0 or channels not in (None, 1, 3):
            raise ConfigError(
                f"a map of size_px={size_px}, shift_px={shift_px}, channels={channels}; expected a size of at least "
                "one and channels 1, 3 or None."
            )
        if values not in ("linear", "log", "inverse") or scale not in ("range", "item", "none"):
            raise ConfigError(
                f"a map of values={values!r}, scale={scale!r}; expected 'linear', 'log' or 'inverse', and 'range', "
                "'item' or 'none'."
            )
        has_range = low is not None and high is not None
        if (has_range and not low < high) or (scale == "range" and not has_range):  # type: ignore[operator]
            raise ConfigError(f"a map from low={low} to high={high}; scale: range needs both, and low below high.")
        if values != "linear" and low is not None and low <= 0:
            raise ConfigError(f"values: {values} of numbers down to low={low}; set low above zero, or leave it out.")
        self.size_px, self.crop, self.channels, self.low, self.high = size_px, crop, channels, low, high
        self.values, self.scale, self.smooth, self.mean, self.std = values, scale, smooth, mean, std
        self.flip, self.shift_px = flip, shift_px

    def __call__(self, payload: Any, rng: torch.Generator | None = None) -> Tensor:
        """The raw tensor of one map.

        Raises:
            MediaError: invalid_map, another number of channels than `channels` needs.
        """
        source = require_payload(payload, Map, self)
        if self.channels is not None and len(source.values) not in (1, self.channels):
            raise MediaError(
                "invalid_map", f"a map of {len(source.values)} channels; expected 1 or {self.channels}. Set `channels`."
            )
        raw = self._scaled(self._in_range(torch.from_numpy(source.values.copy())))
        raw = self._resized(raw)
        if self.channels == 3 and raw.shape[0] == 1:
            raw = raw.expand(3, -1, -1)
        raw = normalize(raw, self._per_channel(self.mean, raw), self._per_channel(self.std, raw))
        if rng is not None and self.shift_px:
            raw = shift_picture(raw, self.shift_px, rng)
        if rng is not None and self.flip and uniform(rng, 0, 1) < 0.5:
            raw = raw.flip(-1)
        return raw.contiguous()

    def shape(self, raw: Tensor) -> Shape:
        """One row per pixel on the grid (1, Y, X)."""
        return Shape(raw.shape[1] * raw.shape[2], (1, raw.shape[1], raw.shape[2]))

    def _in_range(self, raw: Tensor) -> Tensor:
        if self.values == "linear":
            return self._clipped(raw)
        is_there = raw > 0
        if not bool(is_there.any()):
            return torch.zeros_like(raw)
        clipped = self._clipped(raw.clamp(min=_TINY))
        raw = clipped.log() if self.values == "log" else 1 / clipped
        return torch.where(is_there, raw, raw[is_there].min())

    def _clipped(self, raw: Tensor) -> Tensor:
        return raw if self.low is None and self.high is None else raw.clamp(self.low, self.high)

    def _scaled(self, raw: Tensor) -> Tensor:
        if self.scale == "none":
            return raw
        if self.scale == "item":
            least, largest = float(raw.min()), float(raw.max())
        else:
            ends = self._in_range(torch.tensor([float(self.low or 0), float(self.high or 0)]))
            least, largest = float(ends.min()), float(ends.max())
        return (raw - least) / max(largest - least, _TINY)

    def _resized(self, raw: Tensor) -> Tensor:
        size = self.size_px if self.crop else (self.size_px, self.size_px)
        if raw.shape[1:] != (self.size_px, self.size_px):
            raw = resize_image(raw, size, "bicubic" if self.smooth else "nearest")
            raw = raw if self.scale == "none" else raw.clamp(0, 1)  # cubic curves leave the range by a little
        return center_crop(raw, self.size_px) if self.crop else raw

    def _per_channel(self, value: float | Sequence[float], raw: Tensor) -> tuple[float, ...]:
        return (float(value),) * raw.shape[0] if isinstance(value, int | float) else tuple(value)
