"""Sounds as Kaldi filter banks in the scale of the encoders that read them: BEATs, AST and what was built on it.

Source: BEATs (arXiv:2212.09058); AST (arXiv:2104.01778), whose frames OneLLM (arXiv:2312.03700) and Meta-Transformer
(arXiv:2307.10802) cut into patches too.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from omniloom.encoders.base import Processor
from omniloom.encoders.filter_banks import kaldi_fbank
from omniloom.encoders.payload_checks import audio_windows, mono_samples, require_payload
from omniloom.errors import ConfigError, MediaError
from omniloom.media import Audio
from omniloom.sequence import Shape

__all__ = ["FilterBankProcessor"]


class _Scale(NamedTuple):
    """How samples are scaled and windowed, and the mean and deviation of the energies over AudioSet."""

    window: Literal["hanning", "povey"]
    scale: float
    mean: float
    std: float


_STYLES = {
    "ast": _Scale("hanning", 1.0, -4.2677393, 4.5689974),
    "beats": _Scale("povey", 32_768.0, 15.41663, 6.55582),
}


class FilterBankProcessor(Processor):
    """Audio to raw (F, num_mels): log energies of windows of 25 ms every 10 ms at 16 kHz, about in -1..1.

    Args:
        style: "beats", or "ast" for AST, OneLLM and Meta-Transformer.
        num_mels: M.
        frames: fill shorter sounds up with zeros to so many frames, as AST and OneLLM do to 1,024; None keeps the
            length.
        max_s: longest sound of an item; `split` cuts longer ones into equal parts. With `frames`, at most theirs.
    Raises:
        ConfigError: an unknown style, or a number that is not above zero.
    """

    payload_kind = "audio"

    def __init__(
        self,
        *,
        style: Literal["beats", "ast"] = "beats",
        num_mels: int = 128,
        frames: int | None = None,
        max_s: float = 30.0,
    ) -> None:
        if style not in _STYLES:
            raise ConfigError(f"unknown style {style!r} of a filter bank; expected one of {', '.join(_STYLES)}.")
        if num_mels < 1 or max_s <= 0 or (frames is not None and frames < 1):
            raise ConfigError(f"num_mels={num_mels}, frames={frames}, max_s={max_s}: all must be above zero.")
        self.style, self.num_mels, self.frames, self.max_s = style, num_mels, frames, max_s

    def __call__(self, payload: Any, rng: torch.Generator | None = None) -> Tensor:
        """The raw tensor of one sound; nothing is random.

        Raises:
            MediaError: wrong_payload; audio_too_long; invalid_audio, a sound shorter than one window.
        """
        samples = mono_samples(require_payload(payload, Audio, self), self._window_s())
        style = _STYLES[self.style]
        energies = kaldi_fbank(samples, self.num_mels, window=style.window, scale=style.scale)
        if not len(energies):
            raise MediaError(
                "invalid_audio", f"the sound has {len(samples)} samples; one frame needs 400. Drop or pad it."
            )
        if self.frames is not None:
            energies = F.pad(energies, (0, 0, 0, self.frames - len(energies)))
        # Both models doubled the deviation in training.
        return (energies - style.mean) / (2 * style.std)

    def shape(self, raw: Tensor) -> Shape:
        """One row per frame, 10 ms apart."""
        return Shape(raw.shape[0], times=tuple(frame / 100 for frame in range(raw.shape[0])))

    def split(self, payload: Any) -> list[Any]:
        """The fewest equal parts that fit."""
        return list(audio_windows(require_payload(payload, Audio, self), self._window_s()))

    def _window_s(self) -> float:
        return self.max_s if self.frames is None else min(self.max_s, (self.frames * 160 + 399) / 16_000)
