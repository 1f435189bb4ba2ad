"""What is written reads back equal, or is refused."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from omniloom.errors import MediaError
from omniloom.media import (
    Audio,
    Image,
    Map,
    Payload,
    Points,
    Series,
    Video,
    audio_to_wav_bytes,
    image_to_png_bytes,
    load,
    save,
    to_data_uri,
)

RANDOM = np.random.default_rng(0)
IMAGE = Image(RANDOM.integers(0, 256, (5, 7, 3), dtype=np.uint8))
AUDIO = Audio(RANDOM.uniform(-1, 1, (2, 500)).astype(np.float32), 22_050)
VIDEO = Video(RANDOM.integers(0, 256, (4, 6, 8, 3), dtype=np.uint8), np.array([0.0, 0.04, 0.5, 0.6]))
SOUND_VIDEO = Video(VIDEO.frames, VIDEO.times_s, AUDIO)
POINTS = Points(RANDOM.normal(size=(9, 3)).astype(np.float32), RANDOM.normal(size=(9, 2)).astype(np.float32))
BARE_POINTS = Points(POINTS.xyz, np.zeros((9, 0), np.float32))
SERIES = Series(RANDOM.normal(size=(9, 2)).astype(np.float32), 12.5)
RATELESS = Series(SERIES.values)
MAP = Map(RANDOM.normal(size=(2, 4, 3)).astype(np.float32))

EXACT = [
    (IMAGE, ".png"),
    (IMAGE, ".PNG"),
    (VIDEO, ".npz"),
    (SOUND_VIDEO, ".npz"),
    (POINTS, ".npy"),
    (POINTS, ".npz"),
    (BARE_POINTS, ".npy"),
    (SERIES, ".npz"),
    (RATELESS, ".npy"),
    (RATELESS, ".npz"),
    (MAP, ".npy"),
    (MAP, ".npz"),
]


@pytest.mark.parametrize(("payload", "suffix"), EXACT)
def test_exact_formats_read_back_with_the_same_digest(payload: Payload, suffix: str, tmp_path: Path) -> None:
    path = save(payload, tmp_path / f"x{suffix}")
    assert load(path, payload.kind).digest() == payload.digest()


@pytest.mark.parametrize("payload", [IMAGE, POINTS, SERIES, RATELESS, MAP])
def test_data_uris_read_back_with_the_same_digest(payload: Payload) -> None:
    assert load(to_data_uri(payload), payload.kind).digest() == payload.digest()


def test_sound_reads_back_within_one_step_of_16_bits(tmp_path: Path) -> None:
    for source in (audio_to_wav_bytes(AUDIO), to_data_uri(AUDIO), save(AUDIO, tmp_path / "x.wav")):
        again = load(source, "audio")
        assert again.rate_hz == 22_050 and again.samples.shape == (2, 500)
        assert np.abs(again.samples - AUDIO.samples).max() <= 1 / 32_768


def test_sound_beyond_full_scale_is_clipped_and_not_wrapped() -> None:
    again = load(audio_to_wav_bytes(Audio(np.array([[-3, -1, 1, 3]], np.float32), 8000)), "audio")
    assert np.allclose(again.samples, [[-1, -1, 1, 1]], atol=1e-4)


def test_an_animation_keeps_frames_exactly_and_times_to_the_millisecond() -> None:
    again = load(to_data_uri(VIDEO), "video")
    assert np.array_equal(again.frames, VIDEO.frames)
    assert np.allclose(again.times_s, VIDEO.times_s, atol=1e-3)


def test_the_same_payload_gives_the_same_bytes() -> None:
    assert image_to_png_bytes(IMAGE) == image_to_png_bytes(IMAGE)
    for payload in (IMAGE, AUDIO, VIDEO, POINTS, SERIES, MAP):
        assert to_data_uri(payload) == to_data_uri(payload)


def test_what_a_format_would_lose_is_refused(tmp_path: Path) -> None:
    for payload, suffix in ((SERIES, ".npy"), (SOUND_VIDEO, ".webp"), (IMAGE, ".jpg"), (AUDIO, ""), (POINTS, ".ply")):
        with pytest.raises(MediaError, match="unsupported_target"):
            save(payload, tmp_path / f"x{suffix}")
    assert not list(tmp_path.iterdir())


def test_a_kind_without_a_writer_is_refused(tmp_path: Path) -> None:
    @dataclass(frozen=True, eq=False)
    class Smell(Payload):
        kind: ClassVar[str] = "smell"

    with pytest.raises(MediaError, match="no writer for kind 'smell'"):
        to_data_uri(Smell())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(IMAGE, tmp_path / "x.png")
    before = path.read_bytes()

    def fail(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save(Image(IMAGE.pixels[::-1].copy()), path)
    assert path.read_bytes() == before and [item.name for item in tmp_path.iterdir()] == ["x.png"]


def test_a_file_has_the_usual_permissions(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        assert save(IMAGE, tmp_path / "x.png").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(mask)
