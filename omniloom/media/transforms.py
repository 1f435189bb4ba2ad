"""From payloads to tensors, in plain torch: what encoders' processors are made of.

Letters in names: C channels, Y X picture, S audio samples, M mel bands, T steps, N points. No function changes its
input.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import ShapeError
from .payloads import Image

__all__ = [
    "center_crop",
    "farthest_point_sample",
    "log_mel",
    "mel_filters",
    "normalize",
    "random_sample",
    "resample",
    "resize_image",
    "to_float",
]


def to_float(image: Image) -> Tensor:
    """The pixels as float32 (3, Y, X) in 0..1."""
    return torch.from_numpy(image.pixels.copy()).permute(2, 0, 1).to(torch.float32) / 255


def resize_image(
    pixels_CYX: Tensor, size_px: int | tuple[int, int], mode: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
) -> Tensor:
    """Scale a float picture, with antialiasing unless `mode` is "nearest".

    Args:
        size_px: an int is the new length of the shorter side, the longer one keeps the ratio (rounded, at least 1);
            a pair is the new (Y, X).
    Returns:
        float (C, Y', X'). Bicubic may leave 0..1 by a little; it is not clamped.
    """
    _require_rank(pixels_CYX, 3, "pixels_CYX", "(C, Y, X)")
    height_px, width_px = pixels_CYX.shape[1:]
    if isinstance(size_px, int):
        scale = size_px / min(height_px, width_px)
        size_px = (max(1, round(height_px * scale)), max(1, round(width_px * scale)))
    if min(size_px) < 1:
        raise ShapeError(f"size_px is {size_px}; a picture needs at least one pixel along each side.")
    if mode == "nearest":
        return functional.interpolate(pixels_CYX[None], size_px, mode="nearest-exact")[0]
    return functional.interpolate(pixels_CYX[None], size_px, mode=mode, antialias=True, align_corners=False)[0]


def center_crop(pixels_CYX: Tensor, size_px: int | tuple[int, int], fill: float = 0.0) -> Tensor:
    """The middle (C, Y', X') of a picture; where the picture is smaller, `fill` surrounds it.

    Args:
        size_px: the new side of a square, or the new (Y, X). An odd remainder leaves the extra pixel below and right.
    """
    _require_rank(pixels_CYX, 3, "pixels_CYX", "(C, Y, X)")
    sides = (size_px, size_px) if isinstance(size_px, int) else size_px
    if min(sides) < 1:
        raise ShapeError(f"size_px is {size_px}; a picture needs at least one pixel along each side.")
    for axis, side in zip((1, 2), sides, strict=True):
        length = pixels_CYX.shape[axis]
        if length > side:
            pixels_CYX = pixels_CYX.narrow(axis, (length - side) // 2, side)
    before_y, before_x = ((side - length) // 2 for side, length in zip(sides, pixels_CYX.shape[1:], strict=True))
    after_y, after_x = sides[0] - pixels_CYX.shape[1] - before_y, sides[1] - pixels_CYX.shape[2] - before_x
    return functional.pad(pixels_CYX, (before_x, after_x, before_y, after_y), value=fill)


def normalize(pixels_CYX: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(pixels - mean) / std, channel by channel; `mean` and `std` have C numbers, std above zero."""
    channels = pixels_CYX.shape[0]
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise ShapeError(
            f"{channels} channels, but {len(mean)} means and {len(std)} deviations; C of each, deviations above zero."
        )
    mean_C, std_C = pixels_CYX.new_tensor(mean), pixels_CYX.new_tensor(std)
    return (pixels_CYX - mean_C[:, None, None]) / std_C[:, None, None]


def log_mel(
    samples_S: Tensor,
    rate_hz: int = 16_000,
    num_mels: int = 80,
    n_fft: int = 400,
    hop: int = 160,
    style: Literal["whisper", "plain"] = "whisper",
    pad_to_s: float | None = None,
) -> Tensor:
    """Log-mel spectrogram (num_mels, T) of a mono sound, T = max(S, n_fft) // hop frames of hop / rate_hz seconds.

    Args:
        samples_S: float (S,), S >= 1. Shorter than `n_fft` it is filled up with zeros.
        style: "plain" is log10 of the mel energies, not below 1e-10. "whisper" then lifts what is more than 8 below the
            loudest band to that, and returns (x + 4) / 4; on the defaults it equals the feature extractor of Whisper.
        pad_to_s: fill up with zeros to this many seconds first, as Whisper's encoder expects (30.0); a longer sound
            is an error, not a cut. None keeps the length. Padding adds frames and changes only the last of the others.
    Raises:
        ShapeError: not one channel, no sample, or longer than `pad_to_s`.
    Source: Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision (arXiv:2212.04356), section 2.2.
    """
    _require_rank(samples_S, 1, "samples_S", "(S,)")
    if len(samples_S) < 1:
        raise ShapeError("samples_S is empty; a spectrogram needs at least one sample.")
    if style not in ("whisper", "plain"):
        raise ShapeError(f"unknown style {style!r}. Known: plain, whisper.")
    target = n_fft if pad_to_s is None else round(pad_to_s * rate_hz)
    if pad_to_s is not None and len(samples_S) > target:
        raise ShapeError(
            f"{len(samples_S)} samples exceed pad_to_s = {pad_to_s:g} s of {target}. Window the sound first."
        )
    samples_S = functional.pad(samples_S, (0, max(0, max(target, n_fft) - len(samples_S))))
    window = torch.hann_window(n_fft, dtype=samples_S.dtype, device=samples_S.device)
    spectrum_KT = torch.stft(samples_S, n_fft, hop, window=window, return_complex=True)
    # The frame centred on the end of the sound is half outside of it; Whisper drops it.
    energy_KT = spectrum_KT[:, : len(samples_S) // hop].abs().square()
    filters_MK = mel_filters(num_mels, n_fft, rate_hz).to(energy_KT)
    log_MT = (filters_MK @ energy_KT).clamp(min=1e-10).log10()
    if style == "plain":
        return log_MT
    return (torch.maximum(log_MT, log_MT.max() - 8.0) + 4.0) / 4.0


@lru_cache(maxsize=16)
def mel_filters(num_mels: int, n_fft: int, rate_hz: int) -> Tensor:
    """Triangular filters of equal area, float64 (num_mels, n_fft // 2 + 1), from 0 Hz to half the rate.

    The scale is Slaney's: linear below 1000 Hz (15 mel), logarithmic above (27 mel per factor 6.4).
    Source: Slaney, Auditory Toolbox, version 2 (1998), `mfcc`.
    """
    top_hz = rate_hz / 2
    top_mel = 3 * top_hz / 200 if top_hz < 1000 else 15 + 27 * math.log(top_hz / 1000) / math.log(6.4)
    mels = torch.linspace(0, top_mel, num_mels + 2, dtype=torch.float64)
    edges_hz = torch.where(mels < 15, mels * 200 / 3, 1000 * torch.exp((mels - 15) * (math.log(6.4) / 27)))
    bins_hz = torch.linspace(0, top_hz, n_fft // 2 + 1, dtype=torch.float64)
    lower, centre, upper = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    rising, falling = (bins_hz - lower) / (centre - lower), (upper - bins_hz) / (upper - centre)
    return torch.minimum(rising, falling).clamp(min=0) * (2 / (upper - lower))


def resample(
    values_TC: Tensor, length: int | None = None, *, rate_hz: float | None = None, new_rate_hz: float | None = None
) -> Tensor:
    """A series at other times, by straight lines between its steps: (T', C). No filter: smooth before thinning noise.

    Args:
        length: the new T'; first and last step stay where they are.
        rate_hz, new_rate_hz: instead of `length`: step i lies at i / rate_hz seconds, and T' is as many new steps
            as end not after the last old one.
    """
    _require_rank(values_TC, 2, "values_TC", "(T, C)")
    steps = len(values_TC)
    if steps < 1:
        raise ShapeError("values_TC has no steps; nothing lies between none.")
    if length is not None and rate_hz is None and new_rate_hz is None and length >= 1:
        at = torch.linspace(0, steps - 1, length, dtype=torch.float64)
    elif length is None and rate_hz is not None and new_rate_hz is not None and rate_hz > 0 and new_rate_hz > 0:
        step = rate_hz / new_rate_hz
        at = torch.arange(math.floor((steps - 1) / step + 1e-9) + 1, dtype=torch.float64) * step
    else:
        raise ShapeError("pass either length (at least 1) or both rate_hz and new_rate_hz (above zero).")
    before = at.floor().clamp(max=max(steps - 2, 0)).long()
    after = (before + 1).clamp(max=steps - 1)
    weight = (at - before).clamp(max=1.0).to(values_TC)[:, None]
    before, after = before.to(values_TC.device), after.to(values_TC.device)
    return values_TC[before] * (1 - weight) + values_TC[after] * weight


def random_sample(points_NC: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Indices (n,) of points drawn evenly: without repetition up to N; above, whole rounds first, then the rest."""
    count = _require_points(points_NC, n)
    rounds = [torch.randperm(count, generator=generator) for _ in range(-(-n // count))]
    return torch.cat(rounds)[:n].to(points_NC.device)


def farthest_point_sample(points_N3: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Indices (n,) of points that cover the cloud: each next one is the farthest from all before, the first is random.

    For n above N the order repeats from its start. O(n N) time, O(N) memory.
    Source: PointNet++ (arXiv:1706.02413), section 3.2.
    """
    count = _require_points(points_N3, n)
    chosen = torch.empty(min(n, count), dtype=torch.long, device=points_N3.device)
    latest = torch.randint(count, (), generator=generator).to(points_N3.device)
    nearest_N = torch.full((count,), torch.inf, dtype=points_N3.dtype, device=points_N3.device)
    for index in range(len(chosen)):
        chosen[index] = latest
        nearest_N = torch.minimum(nearest_N, (points_N3 - points_N3[latest]).square().sum(dim=1))
        nearest_N[latest] = -1  # never again, even if all points are one
        latest = nearest_N.argmax()
    return chosen.repeat(-(-n // count))[:n]


def _require_points(points: Tensor, n: int) -> int:
    _require_rank(points, 2, "points", "(N, 3)")
    if n < 1 or len(points) < 1:
        raise ShapeError(f"cannot draw {n} of {len(points)} points; at least one of each is needed.")
    return len(points)


def _require_rank(tensor: Tensor, rank: int, name: str, layout: str) -> None:
    if tensor.ndim != rank:
        raise ShapeError(f"{name} has shape {tuple(tensor.shape)}; expected {layout}.")
