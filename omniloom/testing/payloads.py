"""Made-up payloads of every kind: of several sizes, deterministic, for parts whose author gives no examples.

They have the form of the medium and no meaning. What a part takes (how many channels, how long) is not known here, so
there are several sets per kind, the likeliest first; the kit takes the first that the part accepts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from omniloom.media import Audio, Image, Map, Payload, Points, Series, Video

__all__ = ["made_payloads"]

_CHANNELS = (1, 2, 3, 4, 6, 8, 9, 12, 16, 32, 64)


def made_payloads(kind: str, *, channels: Sequence[int] = (), seed: int = 0) -> Iterator[list[Payload]]:
    """Sets of four payloads of `kind`; none of a kind that only its own package knows.

    `channels`: numbers of channels to try first, for kinds that have any number of them.
    """
    rng = np.random.default_rng(seed)
    wanted = list(dict.fromkeys([*(count for count in channels if 0 < count <= 512), *_CHANNELS]))
    if kind == "image":
        yield [_image(rng, *size) for size in ((32, 32), (24, 40), (48, 32), (32, 32))]
    elif kind == "audio":
        yield [
            _audio(rng, seconds, rate, n)
            for seconds, rate, n in ((0.4, 16000, 1), (1.0, 16000, 1), (0.7, 44100, 2), (0.4, 8000, 1))
        ]
        yield [_audio(rng, seconds, 16000, 1) for seconds in (3.0, 5.0, 4.0, 3.0)]
    elif kind == "video":
        yield [
            _video(rng, frames, size) for frames, size in ((4, (32, 32)), (7, (24, 40)), (2, (32, 32)), (4, (48, 32)))
        ]
    elif kind == "points":
        for count in (0, *wanted):
            yield [_points(rng, number, count) for number in (64, 150, 40, 64)]
    elif kind == "map":
        for count in wanted:
            yield [_map(rng, count, *size) for size in ((32, 32), (24, 40), (48, 32), (32, 32))]
    elif kind == "series":
        for factor in (1, 32):
            for count in wanted:
                yield [_series(rng, steps * factor, count) for steps in (64, 150, 40, 64)]


def _map(rng: np.random.Generator, channels: int, height: int, width: int) -> Map:
    """A slope with noise on it, as of a depth camera."""
    slope = np.linspace(0.5, 4, width) * rng.uniform(0.5, 2, (channels, 1, 1))
    return Map((slope + rng.normal(0, 0.1, (channels, height, width))).astype(np.float32))


def _image(rng: np.random.Generator, height: int, width: int) -> Image:
    """Noise on a colour of its own: pictures that differ in large and in small."""
    noise = rng.integers(-60, 61, (height, width, 3))
    return Image(np.clip(rng.integers(0, 256, 3) + noise, 0, 255).astype(np.uint8))


def _audio(rng: np.random.Generator, seconds: float, rate_hz: int, channels: int) -> Audio:
    time = np.arange(int(seconds * rate_hz)) / rate_hz
    tones = [0.4 * np.sin(2 * np.pi * rng.uniform(200, 2000) * time) for _ in range(channels)]
    return Audio((np.array(tones) + rng.normal(0, 0.02, (channels, time.size))).astype(np.float32), rate_hz)


def _video(rng: np.random.Generator, frames: int, size: tuple[int, int]) -> Video:
    pictures = np.stack([_image(rng, *size).pixels for _ in range(frames)])
    return Video(pictures, np.arange(frames) / 8.0)


def _points(rng: np.random.Generator, number: int, features: int) -> Points:
    xyz = rng.normal(0, 1, (number, 3)) * rng.uniform(0.3, 3, 3)
    return Points(xyz.astype(np.float32), rng.normal(0, 1, (number, features)).astype(np.float32))


def _series(rng: np.random.Generator, steps: int, channels: int) -> Series:
    time = np.arange(steps)[:, None] / 50.0
    waves = np.sin(2 * np.pi * (rng.uniform(0.5, 5, channels) * time + rng.uniform(0, 1, channels)))
    return Series((waves + rng.normal(0, 0.1, (steps, channels))).astype(np.float32), 50.0)
