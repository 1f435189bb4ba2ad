"""A sound as a few short spectrograms, spread evenly from its beginning to its end.

Source: ImageBind (arXiv:2305.05665), section 4: clips of 2 s, Kaldi filter banks of 128 bands, 204 frames.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from omniloom.encoders.base import Processor
from omniloom.encoders.filter_banks import kaldi_fbank
from omniloom.encoders.payload_checks import mono_samples, require_payload
from omniloom.errors import ConfigError
from omniloom.media import Audio
from omniloom.sequence import Shape

__all__ = ["SoundClipsProcessor"]

_RATE_HZ = 16_000


class SoundClipsProcessor(Processor):
    """Audio to raw (clips, 1, num_mels, frames): log energies of windows of 25 ms every 10 ms, less `mean`, over `std`.

    Each clip loses its mean; frames behind its end are zero before `mean` is subtracted. Clips of a long sound leave
    gaps and those of a short one overlap, so that every sound has as many.

    Args:
        clips: of an item.
        clip_s: seconds of a clip.
        num_mels: bands.
        frames: of a clip; a clip of more would lose its end, which is refused here.
        mean, std: of the energies.
    Raises:
        ConfigError: a number that is not above zero, or frames too few for a clip.
    """

    payload_kind = "audio"

    def __init__(
        self,
        *,
        clips: int = 3,
        clip_s: float = 2.0,
        num_mels: int = 128,
        frames: int = 204,
        mean: float = -4.268,
        std: float = 9.138,
    ) -> None:
        if min(clips, num_mels, frames) < 1 or clip_s <= 0 or std <= 0:
            raise ConfigError(
                f"clips={clips}, clip_s={clip_s}, num_mels={num_mels}, frames={frames}, std={std} of a sound; expected "
                "numbers above zero."
            )
        if frames < (round(clip_s * _RATE_HZ) - 400) // 160 + 1:
            raise ConfigError(f"frames={frames} are too few for clips of {clip_s:g} s, which have 100 a second.")
        self.clips, self.clip_s, self.num_mels, self.frames = clips, clip_s, num_mels, frames
        self.mean, self.std = mean, std

    def __call__(self, payload: Any, rng: torch.Generator | None = None) -> Tensor:
        """The clips of one sound; nothing is random."""
        samples = mono_samples(require_payload(payload, Audio, self), None, _RATE_HZ)
        last_s = max(len(samples) / _RATE_HZ - self.clip_s, 0.0)
        starts_s = [last_s * clip / max(self.clips - 1, 1) for clip in range(self.clips)]
        return torch.stack([self._clip(samples, start_s)[None] for start_s in starts_s])

    def shape(self, raw: Tensor) -> Shape:
        """One row per band and frame on the grid (clips, num_mels, frames)."""
        clips, _, mels, frames = raw.shape
        return Shape(clips * mels * frames, (clips, mels, frames))

    def _clip(self, samples: Tensor, start_s: float) -> Tensor:
        part = samples[int(start_s * _RATE_HZ) : int((start_s + self.clip_s) * _RATE_HZ)]
        energies = kaldi_fbank(part - part.mean(), self.num_mels)
        return (F.pad(energies.T, (0, self.frames - len(energies))) - self.mean) / self.std
