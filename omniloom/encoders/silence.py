"""What silence is in Whisper's log-mel scale."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["fill_with_silence"]


def fill_with_silence(frames: Tensor, count: int) -> Tensor:
    """(F, M) frames of a sound to (count, M), as if the recording had been padded with zeros.

    Silence lies 8 decades under the loudest band, but not under 1e-10. The scale is (log10 power + 4) / 4, so 8 decades
    are 2 and 1e-10 is -1.5.
    """
    silence = float(torch.clamp(frames.max() - 2.0, min=-1.5))
    return F.pad(frames, (0, 0, 0, count - frames.shape[0]), value=silence)
