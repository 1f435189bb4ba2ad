"""A sound as a few spectrograms, spread from its beginning to its end: as clips, or as the channels of one picture.

Source: ImageBind (arXiv:2305.05665), section 4: clips of 2 s, Kaldi filter banks of 128 bands, 204 frames; LanguageBind
(arXiv:2310.01852): three windows of 1,036 frames of 112 bands.
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

__all__ = ["SoundChannelsProcessor", "SoundClipsProcessor"]

_RATE_HZ = 16_000
_HOP = 160
_CHANNELS = 3


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


class SoundChannelsProcessor(Processor):
    """Audio to raw (3, num_mels, frames): windows from the front, the middle and the back, as a picture's channels.

    Log energies of windows of 25 ms every 10 ms of the sound less its mean, then less `mean`, over `std`. A sound
    shorter than a window is repeated as often as it fits whole, and its channels are alike; frames behind its end are
    zero before `mean` is subtracted.

    Args:
        num_mels: bands.
        frames: of a window, 100 a second.
        max_s: longest sound that is taken.
        mean, std: of the energies.
    Raises:
        ConfigError: a number that is not above zero.
    """

    payload_kind = "audio"

    def __init__(
        self,
        *,
        num_mels: int = 112,
        frames: int = 1036,
        max_s: float | None = None,
        mean: float = -4.2677393,
        std: float = 4.5689974,
    ) -> None:
        if min(num_mels, frames) < 1 or std <= 0 or (max_s is not None and max_s <= 0):
            raise ConfigError(
                f"num_mels={num_mels}, frames={frames}, max_s={max_s}, std={std} of a sound; expected numbers above "
                "zero."
            )
        self.num_mels, self.frames, self.max_s = num_mels, frames, max_s
        self.mean, self.std = mean, std

    def __call__(self, payload: Any, rng: torch.Generator | None = None) -> Tensor:
        """The windows of one sound; nothing is random."""
        samples = mono_samples(require_payload(payload, Audio, self), self.max_s, _RATE_HZ)
        least = self.frames * _HOP
        if len(samples) < least:
            samples = samples.repeat(least // len(samples))
            samples = F.pad(samples, (0, least - len(samples)))
        energies = kaldi_fbank(samples - samples.mean(), self.num_mels)
        spare = max(len(energies) - self.frames, 0) + 1  # places where a window can begin, cut into three
        each, longer = divmod(spare, _CHANNELS)  # the first ones are the longer ones
        starts = [third * each + min(third, longer) if each or third < longer else 0 for third in range(_CHANNELS)]
        windows = [energies[start : start + self.frames] for start in starts]
        raw = torch.stack([F.pad(window.T, (0, self.frames - len(window))) for window in windows])
        return (raw - self.mean) / self.std

    def shape(self, raw: Tensor) -> Shape:
        """One row per band and frame on the grid (1, num_mels, frames)."""
        return Shape(self.num_mels * self.frames, (1, self.num_mels, self.frames))
