"""What published encoders of sound read, by kind of feature extractor: log-mel frames, filter banks, waveforms.

Source: Whisper (arXiv:2212.04356), wav2vec 2.0 (arXiv:2006.11477), AST (arXiv:2104.01778), CLAP (arXiv:2211.06687),
Phi-4-multimodal (arXiv:2503.01743).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from omniloom.encoders.filter_banks import decibel_mel, kaldi_fbank
from omniloom.errors import ConfigError, MediaError
from omniloom.media.transforms import log_mel
from omniloom.sequence import Bundle, Raw

__all__ = ["SOUNDS", "SoundKind"]

Config = Mapping[str, Any]


class SoundKind(NamedTuple):
    """A kind of feature extractor: what its file leaves out, and how it reads (S,) samples.

    `read`: (config, samples, trim, lengths) -> raw. `window_s`: the longest sound it reads, None for any. `step_s`: of
    its rows, None where they have no times of their own. `options`: those of `trim` and `lengths` that it knows.
    """

    defaults: dict[str, Any]
    read: Callable[[Config, Tensor, bool, bool], Raw]
    window_s: Callable[[Config], float | None]
    step_s: Callable[[Config], float | None]
    options: tuple[str, ...] = ()


def _whisper(config: Config, samples: Tensor, trim: bool, lengths: bool) -> Raw:
    rate_hz, hop, n_fft = config["sampling_rate"], config["hop_length"], config["n_fft"]
    if config["do_normalize"]:
        samples = _standardized(samples)
    if lengths:
        length = -(-samples.shape[0] // hop)
        # Zeros as far as the window of the second frame behind the sound, and not past the end of Whisper's own.
        end = min((length + 2) * hop + n_fft, config["chunk_length"] * rate_hz)
        samples = F.pad(samples, (0, end - samples.shape[0]))
        frames = log_mel(samples, rate_hz, config["feature_size"], n_fft, hop, "whisper").T[: length + 2]
        return Bundle(frames=frames.contiguous(), length=torch.tensor([length]))
    raw = log_mel(samples, rate_hz, config["feature_size"], n_fft, hop, "whisper", config["chunk_length"]).T
    if trim:
        # Frame i covers samples from i * hop - n_fft / 2 on; later frames hold nothing but padding.
        reached = -(-(samples.shape[0] + n_fft // 2) // hop)
        raw = raw[: min(reached + reached % 2, raw.shape[0])]
    return raw.contiguous()


def _waveform(config: Config, samples: Tensor, trim: bool, lengths: bool) -> Tensor:
    return _standardized(samples) if config["do_normalize"] else samples


def _ast(config: Config, samples: Tensor, trim: bool, lengths: bool) -> Tensor:
    _require_frame(config, samples)
    frames = kaldi_fbank(samples, config["num_mel_bins"])
    raw = F.pad(frames, (0, 0, 0, config["max_length"] - len(frames)))
    # The deviation is doubled, as in AST's own training.
    return (raw - config["mean"]) / (2 * config["std"]) if config["do_normalize"] else raw


def _ast_window_s(config: Config) -> float:
    return float((config["max_length"] * 160 + 399) / config["sampling_rate"])


def _clap(config: Config, samples: Tensor, trim: bool, lengths: bool) -> Tensor:
    whole = int(config["max_length_s"] * config["sampling_rate"])
    times = {"repeatpad": whole // len(samples), "repeat": whole // len(samples) + 1, "pad": 1}
    if config["padding"] not in times:
        raise ConfigError(f"unknown padding {config['padding']!r} of CLAP; expected {', '.join(times)}.")
    samples = samples.repeat(times[config["padding"]])[:whole]
    return decibel_mel(
        F.pad(samples, (0, whole - len(samples))),
        rate_hz=config["sampling_rate"],
        num_mels=config["feature_size"],
        n_fft=config["fft_window_size"],
        hop=config["hop_length"],
        low_hz=config["frequency_min"],
        high_hz=config["frequency_max"],
        # Models with fusion were trained on torchaudio's filters, those without on librosa's.
        scale="htk" if config["truncation"] == "fusion" else "slaney",
    )


def _phi(config: Config, samples: Tensor, trim: bool, lengths: bool) -> Tensor:
    _require_frame(config, samples)
    return kaldi_fbank(
        samples,
        config["feature_size"],
        window="hamming",
        low_hz=config["mel_min_frequency"],
        high_hz=config["mel_max_frequency"],
        scale=32_768,
        floor=1.0,
        removes_mean=False,
    )


def _require_frame(config: Config, samples: Tensor) -> None:
    if config["sampling_rate"] != 16_000:
        raise ConfigError(f"Kaldi's filter banks are of 16,000 Hz; the file says {config['sampling_rate']} Hz.")
    if len(samples) < 400:
        raise MediaError("invalid_audio", f"the sound has {len(samples)} samples; one frame needs 400. Drop or pad it.")


def _standardized(samples: Tensor) -> Tensor:
    return (samples - samples.mean()) / (samples.var(correction=0) + 1e-7).sqrt()


SOUNDS: dict[str, SoundKind] = {
    "Whisper": SoundKind(
        {
            "feature_size": 80,
            "sampling_rate": 16_000,
            "hop_length": 160,
            "n_fft": 400,
            "chunk_length": 30,
            "dither": 0.0,
            "do_normalize": False,
        },
        _whisper,
        lambda config: config["chunk_length"],
        lambda config: config["hop_length"] / config["sampling_rate"],
        ("trim", "lengths"),
    ),
    "Wav2Vec2": SoundKind(
        {"feature_size": 1, "sampling_rate": 16_000, "do_normalize": True},
        _waveform,
        lambda config: None,
        lambda config: None,
    ),
    "AST": SoundKind(
        {
            "sampling_rate": 16_000,
            "num_mel_bins": 128,
            "max_length": 1024,
            "do_normalize": True,
            "mean": -4.2677393,
            "std": 4.5689974,
        },
        _ast,
        _ast_window_s,
        lambda config: 0.01,
    ),
    "Phi4Multimodal": SoundKind(
        {"feature_size": 80, "sampling_rate": 16_000, "mel_min_frequency": 0, "mel_max_frequency": 7690},
        _phi,
        lambda config: None,
        lambda config: 0.01,
    ),
    "Clap": SoundKind(
        {
            "feature_size": 64,
            "sampling_rate": 48_000,
            "hop_length": 480,
            "max_length_s": 10,
            "fft_window_size": 1024,
            "frequency_min": 0,
            "frequency_max": 14_000,
            "truncation": "fusion",
            "padding": "repeatpad",
        },
        _clap,
        lambda config: config["max_length_s"],
        lambda config: config["hop_length"] / config["sampling_rate"],
    ),
}
