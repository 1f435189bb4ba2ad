"""Payloads of every kind that differ by a number and by nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np

from omniloom import media

__all__ = ["payload_of"]


def payload_of(kind: str, index: int, **form: Any) -> media.Payload:
    """A payload whose contents differ plainly with its number, and whose size does unless `same_size`.

    Forms: `channels` (series, map), `features` (points), `seconds` (audio), `frames` (video), `sound` (video),
    `rate_hz`, `steps` (series), `objects` (points: the last feature numbers the object).
    """
    rng = np.random.default_rng(17 + index)
    longer = 0 if form.get("same_size") else index % 2
    if kind == "image":
        return media.Image(_pixels(rng, index, (24, 24 + 8 * longer)))
    if kind == "video":
        count = form.get("frames", 4) + 2 * longer
        frames = np.stack([_pixels(rng, index, (24, 24)) for _ in range(count)])
        times = np.arange(count) / form.get("rate_hz", 2.0)
        sound = _sound(rng, index, count / form.get("rate_hz", 2.0)) if form.get("sound") else None
        return media.Video(frames, times, sound)
    if kind == "audio":
        return _sound(rng, index, form.get("seconds", 0.4) * (1 + 0.5 * longer))
    if kind == "points":
        count = form.get("points", 24) + 6 * longer
        xyz = rng.normal(0, 1, (count, 3)) * np.roll([1.5, 0.5, 0.1], index)
        features = rng.normal(index, 0.1, (count, form.get("features", 0)))
        if form.get("objects"):
            number = np.arange(count)[:, None] % form["objects"]
            features = np.concatenate([features, number], 1)
            xyz = xyz * 0.2 + np.concatenate([number, number * (index - 1), 0 * number], 1)
        return media.Points(xyz.astype(np.float32), features.astype(np.float32))
    steps = form.get("steps", 24) + 8 * longer
    channels = form.get("channels", 2)
    if kind == "series":
        waves = np.sin((index + 1) * 0.4 * np.arange(steps)[:, None] + np.arange(channels))
        values = waves + index - 1 + rng.normal(0, 0.05, (steps, channels))
        return media.Series(values.astype(np.float32), form.get("rate_hz", 50.0))
    if kind == "map":
        ramp = np.linspace(0, index + 1, 24)[None, None] + rng.normal(0, 0.05, (channels, 24, 24))
        return media.Map(ramp.astype(np.float32))
    raise AssertionError(f"no payload of kind {kind!r} here")


def _pixels(rng: np.random.Generator, index: int, size: tuple[int, int]) -> np.ndarray:
    colour = np.roll([220, 60, 20], index)
    return np.clip(colour + rng.integers(-20, 20, (*size, 3)), 0, 255).astype(np.uint8)


def _sound(rng: np.random.Generator, index: int, seconds: float) -> media.Audio:
    time = np.arange(int(16000 * seconds)) / 16000
    wave = 0.4 * np.sin(2 * np.pi * (250.0 * 3**index) * time) + rng.normal(0, 0.01, time.size)
    return media.Audio(wave.astype(np.float32)[None], 16000)
