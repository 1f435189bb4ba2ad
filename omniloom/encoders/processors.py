"""Processors of the five kinds of payload: plain torch, no weights, the same bytes for the same payload.

The shape of a raw tensor has one row for each place it was measured at, before any encoder: pictures and videos have
one per pixel, on the grid (frames, Y, X); spectrograms one per frame; series one per step; clouds one per point.
Encoders compute their own rows from that. Rows have times where the processor itself fixes the rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, repeat
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from omniloom.encoders.augment import mask_bands, random_rotation, shift_picture, uniform
from omniloom.encoders.base import Processor
from omniloom.encoders.frames import check_frames, chosen_frames, frame_begins, frame_windows
from omniloom.encoders.hub_processor import HubProcessor as hub_processor
from omniloom.encoders.payload_checks import audio_windows, mono_samples, require_payload
from omniloom.encoders.point_net import farthest_points
from omniloom.errors import ConfigError, MediaError
from omniloom.media import Audio, Image, Points, Series, Video
from omniloom.media.transforms import center_crop, log_mel, normalize, resample, resize_image, to_float
from omniloom.sequence import Shape

__all__ = [
    "ImageProcessor",
    "LogMelProcessor",
    "PointsProcessor",
    "SeriesProcessor",
    "VideoProcessor",
    "hub_processor",
]

_RATE_HZ = 16_000


def _require(is_right: bool, message: str) -> None:
    if not is_right:
        raise ConfigError(message)


class ImageProcessor(Processor):
    """Image to raw (channels, size_px, size_px), (pixels in 0..1 - mean) / std.

    Args:
        size_px: side of the square.
        crop: scale the shorter side to `size_px` and take the middle; False squeezes the whole picture into the square.
        channels: 3 for RGB, 1 for their mean.
        mean, std: one number, or one per channel.
        shift_px, flip: with an rng, move by up to so many pixels, and mirror left to right in half of the draws.
    """

    payload_kind = "image"

    def __init__(
        self,
        *,
        size_px: int = 32,
        crop: bool = False,
        channels: Literal[1, 3] = 3,
        mean: float | Sequence[float] = 0.5,
        std: float | Sequence[float] = 0.5,
        shift_px: int = 0,
        flip: bool = False,
    ) -> None:
        _require(size_px >= 1 and shift_px >= 0, f"size_px={size_px} and shift_px={shift_px}: a picture needs a size.")
        _require(channels in (1, 3), f"channels={channels} of an image processor; expected 3 (RGB) or 1 (their mean).")
        self.size_px, self.crop, self.channels, self.mean, self.std = size_px, crop, channels, mean, std
        self.shift_px, self.flip = shift_px, flip

    def __call__(self, payload: Any, rng: torch.Generator | None = None) -> Tensor:
        """The raw tensor of one picture."""
        raw = self.picture(require_payload(payload, Image, self))
        if rng is not None and self.shift_px:
            raw = shift_picture(raw, self.shift_px, rng)
        if rng is not None and self.flip and uniform(rng, 0, 1) < 0.5:
            raw = raw.flip(-1)
        return raw

    def picture(self, image: Image) -> Tensor:
        """(channels, size_px, size_px) without augmentation."""
        pixels = to_float(image)
        if self.channels == 1:
            pixels = pixels.mean(0, keepdim=True)
        pixels = resize_image(pixels, self.size_px if self.crop else (self.size_px, self.size_px)).clamp(0, 1)
        if self.crop:
            pixels = center_crop(pixels, self.size_px)
        return normalize(pixels, self._per_channel(self.mean), self._per_channel(self.std))

    def shape(self, raw: Tensor) -> Shape:
        """One row per pixel on the grid (1, Y, X)."""
        return Shape(raw.shape[1] * raw.shape[2], (1, raw.shape[1], raw.shape[2]))

    def _per_channel(self, value: float | Sequence[float]) -> tuple[float, ...]:
        return (float(value),) * self.channels if isinstance(value, int | float) else tuple(value)


class VideoProcessor(Processor):
    """Video to raw (F, 3, size_px, size_px) with F at most `frames`.

    Args:
        frames: most frames of an item.
        rate_hz: frames a second; rows then have times, and `split` cuts longer clips into windows of frames / rate_hz
            seconds. None takes `frames` frames evenly over the whole clip, or all of a shorter one; rows have no times.
        size_px, crop, mean, std: as of ImageProcessor.
    """

    payload_kind = "video"

    def __init__(
        self,
        *,
        frames: int = 8,
        rate_hz: float | None = None,
        size_px: int = 32,
        crop: bool = False,
        mean: float | Sequence[float] = 0.5,
        std: float | Sequence[float] = 0.5,
    ) -> None:
        check_frames(frames, rate_hz)
        self.frames, self.rate_hz, self.size_px, self.crop, self.mean, self.std = (
            frames,
            rate_hz,
            size_px,
            crop,
            mean,
            std,
        )
        self._image = ImageProcessor(size_px=size_px, crop=crop, mean=mean, std=std)

    def __call__(self, payload: Any, rng: torch.Generator | None = None) -> Tensor:
        """The raw tensor of one clip.

        Raises:
            MediaError: video_too_large, a clip longer than `frames` at `rate_hz`.
        """
        chosen = chosen_frames(require_payload(payload, Video, self), self.frames, self.rate_hz)
        return torch.stack([self._image.picture(Image(frame)) for frame in chosen])

    def shape(self, raw: Tensor) -> Shape:
        """One row per pixel on the grid (F, Y, X), at the time of its frame if there is a rate."""
        frames, pixels = raw.shape[0], raw.shape[2] * raw.shape[3]
        times = None
        if self.rate_hz is not None:
            times = tuple(chain.from_iterable(repeat(frame / self.rate_hz, pixels) for frame in range(frames)))
        return Shape(frames * pixels, (frames, raw.shape[2], raw.shape[3]), times)

    def split(self, payload: Any) -> list[Any]:
        """Windows that `frames` frames at `rate_hz` cover, each from time zero and without sound."""
        return list(frame_windows(require_payload(payload, Video, self), self.frames, self.rate_hz))

    def begins_s(self, payload: Any) -> list[float]:
        """When each window begins."""
        return frame_begins(require_payload(payload, Video, self), self.frames, self.rate_hz)


class LogMelProcessor(Processor):
    """Audio to raw (F, num_mels): log-mel energies at 100 frames a second, of windows of 25 ms at 16 kHz.

    Args:
        num_mels: M.
        max_s: longest sound of an item; `split` cuts longer ones into equal parts.
        style: "plain" lifts what is more than 8 decades below the loudest band, then gives the item mean 0 and
            deviation 1; "whisper" is Whisper's scale, without its padding to 30 seconds.
        shift_s, noise, mask_frames, mask_mels: with an rng, silence of up to so many seconds in front, normal noise of
            up to so many deviations, one masked run of frames and one of bands of up to so many.
    """

    payload_kind = "audio"

    def __init__(
        self,
        *,
        num_mels: int = 64,
        max_s: float = 30.0,
        style: Literal["plain", "whisper"] = "plain",
        shift_s: float = 0.0,
        noise: float = 0.0,
        mask_frames: int = 0,
        mask_mels: int = 0,
    ) -> None:
        _require(num_mels >= 1 and max_s > 0, f"num_mels={num_mels}, max_s={max_s}: both must be above zero.")
        _require(
            style in ("plain", "whisper"), f"unknown style {style!r} of log-mel frames; expected 'plain' or 'whisper'."
        )
        _require(
            min(shift_s, noise, mask_frames, mask_mels) >= 0,
            f"shift_s={shift_s}, noise={noise}, mask_frames={mask_frames}, mask_mels={mask_mels}: must be 0 or more.",
        )
        self.num_mels, self.max_s, self.style = num_mels, max_s, style
        self.shift_s, self.noise, self.mask_frames, self.mask_mels = shift_s, noise, mask_frames, mask_mels

    def __call__(self, payload: Any, rng: torch.Generator | None = None) -> Tensor:
        """The raw tensor of one sound.

        Raises:
            MediaError: audio_too_long.
        """
        samples = mono_samples(require_payload(payload, Audio, self), self.max_s)
        if rng is not None and self.shift_s:
            samples = F.pad(samples, (int(uniform(rng, 0, self.shift_s) * _RATE_HZ), 0))
        raw = log_mel(samples, _RATE_HZ, self.num_mels, style=self.style).T
        if self.style == "plain":
            raw = torch.maximum(raw, raw.max() - 8.0)
            raw = (raw - raw.mean()) / raw.std(correction=0).clamp(min=1e-3)
        if rng is None:
            return raw.contiguous()
        if self.noise:
            raw = raw + uniform(rng, 0, self.noise) * torch.randn(raw.shape, generator=rng)
        for axis, limit in enumerate((self.mask_frames, self.mask_mels)):
            if limit:
                raw = mask_bands(raw, axis, limit, rng)
        return raw.contiguous()

    def shape(self, raw: Tensor) -> Shape:
        """One row per frame, 10 ms apart."""
        return Shape(raw.shape[0], times=tuple(frame / 100 for frame in range(raw.shape[0])))

    def split(self, payload: Any) -> list[Any]:
        """The fewest equal parts that `max_s` allows."""
        return list(audio_windows(require_payload(payload, Audio, self), self.max_s))


class SeriesProcessor(Processor):
    """Series to raw (T, C).

    Args:
        length: steps of every item, whatever its rate; or
        rate_hz: steps a second, rows then have times. Both None keep the steps as they are.
        normalize: each channel to mean 0 and deviation 1: of the item, or of `mean` and `std` where they are given.
        mean, std: one number per channel, of the training data.
        jitter, scale, rotate: with an rng, normal noise of so many deviations, a factor within 1 +- scale, and one
            rotation of space for every three neighbouring channels (accelerometer, gyroscope ...).
    """

    payload_kind = "series"

    def __init__(
        self,
        *,
        length: int | None = None,
        rate_hz: float | None = None,
        normalize: bool = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        jitter: float = 0.0,
        scale: float = 0.0,
        rotate: bool = False,
    ) -> None:
        _require(length is None or rate_hz is None, "a series processor takes `length` or `rate_hz`, not both.")
        _require(length is None or length >= 1, f"length={length} of a series; expected at least one step.")
        _require(rate_hz is None or rate_hz > 0, f"rate_hz={rate_hz} of a series; expected a rate above zero.")
        _require((mean is None) == (std is None), "a series processor takes both `mean` and `std`, or neither.")
        _require(min(jitter, scale) >= 0, f"jitter={jitter}, scale={scale} of a series: neither may be below zero.")
        self.length, self.rate_hz, self.normalize, self.mean, self.std = length, rate_hz, normalize, mean, std
        self.jitter, self.scale, self.rotate = jitter, scale, rotate

    def __call__(self, payload: Any, rng: torch.Generator | None = None) -> Tensor:
        """The raw tensor of one series.

        Raises:
            MediaError: invalid_series, one without the rate or the channels that the options need.
        """
        series = require_payload(payload, Series, self)
        raw = self._resampled(torch.from_numpy(series.values.copy()), series.rate_hz)
        if rng is not None and self.rotate:
            if raw.shape[1] % 3:
                raise MediaError(
                    "invalid_series", f"{raw.shape[1]} channels cannot be rotated in threes; set rotate: false."
                )
            raw = (raw.unflatten(1, (-1, 3)) @ random_rotation("any", rng).T).flatten(1)
        if self.normalize:
            raw = self._normalized(raw)
        if rng is not None and self.scale:
            raw = raw * uniform(rng, 1 - self.scale, 1 + self.scale)
        if rng is not None and self.jitter:
            raw = raw + self.jitter * torch.randn(raw.shape, generator=rng)
        return raw

    def shape(self, raw: Tensor) -> Shape:
        """One row per step."""
        times = None if self.rate_hz is None else tuple(step / self.rate_hz for step in range(raw.shape[0]))
        return Shape(raw.shape[0], times=times)

    def _resampled(self, raw: Tensor, rate_hz: float | None) -> Tensor:
        if self.length is None and self.rate_hz is None:
            return raw
        if self.length is not None:
            return resample(_smoothed(raw, raw.shape[0] / self.length), self.length)
        if rate_hz is None:
            raise MediaError("invalid_series", "the series has no rate, and rate_hz is set. Load it with its rate_hz.")
        thinned = _smoothed(raw, rate_hz / float(self.rate_hz or 1))
        return resample(thinned, rate_hz=rate_hz, new_rate_hz=self.rate_hz)

    def _normalized(self, raw: Tensor) -> Tensor:
        if self.mean is None or self.std is None:
            # A channel that never changes has deviation 0 and becomes 0.
            return (raw - raw.mean(0)) / raw.std(0, correction=0).clamp(min=1e-6)
        if len(self.mean) != raw.shape[1] or len(self.std) != raw.shape[1]:
            raise MediaError(
                "invalid_series", f"{raw.shape[1]} channels, but {len(self.mean)} means are set; one each."
            )
        return (raw - raw.new_tensor(self.mean)) / raw.new_tensor(self.std)


def _smoothed(raw: Tensor, factor: float) -> Tensor:
    """Means over the steps that thinning by `factor` joins: without it fast vibrations would look slow."""
    reach = int(factor / 2)
    if reach < 1 or raw.shape[0] < 2:
        return raw
    padded = F.pad(raw.T[None], (reach, reach), mode="replicate")
    return F.avg_pool1d(padded, 2 * reach + 1, 1)[0].T


class PointsProcessor(Processor):
    """Points to raw (N, 3 + C) with N at most `count`: positions, then features.

    Args:
        count: of a larger cloud so many points that cover it are kept, by farthest point sampling.
        normalize: centre at the origin and farthest point at distance 1; features stay.
        rotate, jitter, scale: with an rng, a rotation about one axis ("x", "y", "z") or of space ("any"), normal noise
            of positions in normalised units, and a factor within 1 +- scale.
    """

    payload_kind = "points"

    def __init__(
        self,
        *,
        count: int = 256,
        normalize: bool = True,
        rotate: Literal["none", "x", "y", "z", "any"] = "none",
        jitter: float = 0.0,
        scale: float = 0.0,
    ) -> None:
        _require(count >= 1, f"count={count} of a cloud; expected at least one point.")
        _require(rotate in ("none", "x", "y", "z", "any"), f"unknown rotate {rotate!r}; expected none, x, y, z or any.")
        _require(min(jitter, scale) >= 0, f"jitter={jitter}, scale={scale} of a cloud: neither may be below zero.")
        self.count, self.normalize, self.rotate, self.jitter, self.scale = count, normalize, rotate, jitter, scale

    def __call__(self, payload: Any, rng: torch.Generator | None = None) -> Tensor:
        """The raw tensor of one cloud."""
        points = require_payload(payload, Points, self)
        xyz, features = torch.from_numpy(points.xyz.copy()), torch.from_numpy(points.features.copy())
        if xyz.shape[0] > self.count:
            chosen = farthest_points(xyz[None], self.count)[0]
            xyz, features = xyz[chosen], features[chosen]
        if self.normalize:
            xyz = xyz - xyz.mean(0)
            xyz = xyz / xyz.norm(dim=1).max().clamp(min=1e-9)
        if rng is not None and self.rotate != "none":
            xyz = xyz @ random_rotation(self.rotate, rng).T
        if rng is not None and self.scale:
            xyz = xyz * uniform(rng, 1 - self.scale, 1 + self.scale)
        if rng is not None and self.jitter:
            xyz = xyz + self.jitter * torch.randn(xyz.shape, generator=rng)
        return torch.cat([xyz, features], 1)

    def shape(self, raw: Tensor) -> Shape:
        """One row per point."""
        return Shape(raw.shape[0])
