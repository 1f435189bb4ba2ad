"""What every processor checks of its payload, and how long sounds become windows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor

from omniloom.encoders.base import Processor
from omniloom.errors import MediaError
from omniloom.media import Audio, Payload

__all__ = ["audio_windows", "mono_samples", "require_payload"]

P = TypeVar("P", bound=Payload)


def require_payload(payload: object, kind: type[P], part: Processor) -> P:
    """The payload itself.

    Raises:
        MediaError: wrong_payload, a payload of another kind.
    """
    if not isinstance(payload, kind):
        got = payload.kind if isinstance(payload, Payload) else type(payload).__name__
        raise MediaError(
            "wrong_payload", f"{type(part).__name__} got {got!r}; expected {kind.kind!r}. Load it as that kind."
        )
    return payload


def mono_samples(audio: Audio, max_s: float | None, rate_hz: int = 16_000) -> Tensor:
    """(S,) mono samples at `rate_hz`.

    Raises:
        MediaError: audio_too_long, more than `max_s` seconds; nothing is ever cut silently.
    """
    samples = torch.from_numpy(audio.mono(rate_hz).copy())
    if max_s is not None and samples.shape[0] > round(max_s * rate_hz):
        raise MediaError(
            "audio_too_long",
            f"the sound lasts {audio.duration_s:.2f} s; expected {max_s:g} s at most. Set "
            "`windows: true` beside the processor, which cuts it into several items, or a larger `max_s`.",
        )
    return samples


def audio_windows(audio: Audio, max_s: float | None) -> Iterator[Audio]:
    """The fewest parts of equal length that are at most `max_s` seconds long, in order."""
    total = audio.samples.shape[1]
    count = 1 if max_s is None else -(-total // max(int(max_s * audio.rate_hz), 1))
    for index in range(count):
        yield Audio(audio.samples[:, index * total // count : (index + 1) * total // count], audio.rate_hz)
