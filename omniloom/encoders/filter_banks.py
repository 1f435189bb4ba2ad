"""Mel spectrograms other than Whisper's: Kaldi's filter banks, and spectrograms in decibels.

Computed in float64 and given out as float32, so that they equal the published extractors to the last digits.
Source: Kaldi, `feat/feature-fbank.cc` and `feat/mel-computations.cc`; HTK Book, section 5.4; Slaney, Auditory Toolbox.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["decibel_mel", "kaldi_fbank"]

Scale = Literal["htk", "kaldi", "slaney"]

_FRAME, _HOP, _FFT = 400, 160, 512  # 25 ms every 10 ms at 16 kHz, filled up to the next power of two
_FLOOR = 1.1920928955078125e-07  # the smallest float32 above 1, less 1: what Kaldi takes the logarithm of at least


def kaldi_fbank(
    samples_S: Tensor,
    num_mels: int,
    *,
    window: Literal["hamming", "hanning", "povey"] = "hanning",
    low_hz: float = 20.0,
    high_hz: float = 8_000.0,
    scale: float = 1.0,
    floor: float = _FLOOR,
    removes_mean: bool = True,
) -> Tensor:
    """Natural logarithms of Kaldi's mel energies of a sound at 16 kHz: (F, num_mels), F = 1 + (S - 400) // 160.

    A frame loses its mean, then its low notes (pre-emphasis 0.97). Frames that would run past the end are left out, so
    a sound of fewer than 400 samples has none.

    Args:
        scale: of the samples; 32,768 for models that were trained on whole numbers of 16 bits.
        floor: least energy.
    """
    if samples_S.shape[0] < _FRAME:
        return torch.zeros(0, num_mels)
    frames = scale * samples_S.double().unfold(0, _FRAME, _HOP)
    if removes_mean:
        frames = frames - frames.mean(1, keepdim=True)
    before = torch.cat([frames[:, :1], frames[:, :-1]], 1)
    # Hann's window begins at 0, Hamming's at 0.08; Povey's is Hann's with a flatter top.
    least, power = (0.08 if window == "hamming" else 0.0), (0.85 if window == "povey" else 1.0)
    shape = torch.hann_window(_FRAME, periodic=False, dtype=torch.float64)
    frames = (frames - 0.97 * before) * (least + (1 - least) * shape**power)
    energy = torch.fft.rfft(F.pad(frames, (0, _FFT - _FRAME))).abs().square()
    filters = _filters(num_mels, _FFT, 16_000, low_hz, high_hz, "kaldi", True, False)
    return (energy @ filters.T).clamp(min=floor).log().float()


def decibel_mel(
    samples_S: Tensor,
    *,
    rate_hz: int,
    num_mels: int,
    n_fft: int,
    hop: int,
    low_hz: float,
    high_hz: float,
    scale: Literal["htk", "slaney"],
) -> Tensor:
    """Mel energies in decibels, not below -100: (1 + S // hop, num_mels), frame i centred on sample i * hop.

    Slaney's filters have equal areas, HTK's equal heights.
    """
    window = torch.hann_window(n_fft, dtype=torch.float64)
    spectrum = torch.stft(samples_S.double(), n_fft, hop, window=window, return_complex=True)
    filters = _filters(num_mels, n_fft, rate_hz, low_hz, high_hz, scale, False, scale == "slaney")
    return (10 * (filters @ spectrum.abs().square()).clamp(min=1e-10).log10()).T.float()


@lru_cache(maxsize=16)
def _filters(
    num_mels: int,
    n_fft: int,
    rate_hz: int,
    low_hz: float,
    high_hz: float,
    scale: Scale,
    is_straight_in_mel: bool,
    has_equal_area: bool,
) -> Tensor:
    """Triangles (num_mels, n_fft // 2 + 1), straight lines over mels or over Hertz."""
    to_mel, to_hz = _SCALES[scale]
    lowest, highest = to_mel(torch.tensor([low_hz, high_hz], dtype=torch.float64)).tolist()
    edges_mel = torch.linspace(lowest, highest, num_mels + 2, dtype=torch.float64)
    edges_hz = to_hz(edges_mel)
    bins_hz = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * rate_hz / n_fft
    edges, bins = (edges_mel, to_mel(bins_hz)) if is_straight_in_mel else (edges_hz, bins_hz)
    lower, centre, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - lower) / (centre - lower), (upper - bins) / (upper - centre)
    filters = torch.minimum(rising, falling).clamp(min=0)
    return filters * (2 / (edges_hz[2:] - edges_hz[:-2]))[:, None] if has_equal_area else filters


def _slaney_mel(hz: Tensor) -> Tensor:
    # Linear below 1000 Hz (15 mel), logarithmic above (27 mel per factor 6.4).
    return torch.where(hz < 1000, hz * 3 / 200, 15 + 27 * (hz.clamp(min=1) / 1000).log() / math.log(6.4))


def _slaney_hz(mel: Tensor) -> Tensor:
    return torch.where(mel < 15, mel * 200 / 3, 1000 * ((mel - 15) * math.log(6.4) / 27).exp())


_SCALES: dict[Scale, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "htk": (lambda hz: 2595 * (1 + hz / 700).log10(), lambda mel: 700 * (10 ** (mel / 2595) - 1)),
    "kaldi": (lambda hz: 1127 * (1 + hz / 700).log(), lambda mel: 700 * ((mel / 1127).exp() - 1)),
    "slaney": (_slaney_mel, _slaney_hz),
}
