import base64
import io
import re

import numpy as np
import pytest
from PIL import Image as PILImage

from omniloom.eval.media_html import RENDERERS, render_payload, shows
from omniloom.media import Audio, Image, Map, Payload, Points, Series, Video, load


def uri_bytes(html: str, kind: str) -> bytes:
    found = re.search(rf"data:{kind};base64,([A-Za-z0-9+/=]+)", html)
    assert found is not None
    return base64.b64decode(found[1])


def test_a_tiny_picture_is_embedded_exactly_and_enlarged_with_square_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    html = render_payload(Image(pixels))
    assert np.array_equal(np.asarray(PILImage.open(io.BytesIO(uri_bytes(html, "image/png")))), pixels)
    assert 'class="tiny"' in html and "8 × 8 px" in html


def test_a_photograph_is_shrunk_to_a_small_jpeg_and_keeps_its_shape() -> None:
    rng = np.random.default_rng(0)
    pixels = np.clip(rng.normal(128, 40, (900, 1200, 3)), 0, 255).astype(np.uint8)
    html = render_payload(Image(pixels))
    assert PILImage.open(io.BytesIO(uri_bytes(html, "image/jpeg"))).size == (288, 216)
    assert len(html) < 80_000 and "1200 × 900 px" in html


def test_a_sound_is_drawn_and_can_be_played_back() -> None:
    samples = np.sin(np.arange(8000) * 0.05)[None].astype(np.float32) * 0.5
    html = render_payload(Audio(samples, 8000))
    assert "<svg" in html and "<audio controls" in html and "1.00 s at 8 kHz" in html
    played = load(uri_bytes(html, "audio/wav"), "audio")
    assert played.rate_hz == 8000 and np.abs(played.samples - samples).max() < 1e-4


def test_a_long_sound_is_played_in_part_and_says_so() -> None:
    html = render_payload(Audio(np.full((1, 40_000), 0.1, np.float32), 1000))
    assert "40.00 s at 1 kHz, first 20 s playable" in html
    assert len(uri_bytes(html, "audio/wav")) == 44 + 2 * 20_000


def test_series_points_and_video_are_shown_with_their_sizes() -> None:
    assert "3 channels, 2.00 s at 50 Hz" in render_payload(Series(np.ones((100, 3), np.float32), 50.0))
    assert "1 channel, 10 steps" in render_payload(Series(np.ones((10, 1), np.float32)))
    points = Points(np.eye(3, dtype=np.float32), np.zeros((3, 0), np.float32))
    assert "3 points" in render_payload(points)
    depth = render_payload(Map(np.linspace(0.5, 4, 12, dtype=np.float32).reshape(1, 3, 4)))
    assert "4 × 3 px, 1 channel, 0.5 to 4" in depth and depth.count("<img") == 1
    frames = np.zeros((12, 16, 16, 3), np.uint8)
    video = render_payload(Video(frames, np.arange(12) / 4, Audio(np.ones((1, 800), np.float32), 800)))
    assert video.count("<img") == 6 and "6 of 12 frames" in video and "<audio" in video
    assert "<audio" not in render_payload(Video(frames, np.arange(12) / 4))


class Smell(Payload):
    kind = "smell"


def test_a_new_kind_of_payload_registers_its_own_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omniloom.eval.media_html.RENDERERS", dict(RENDERERS))
    assert "a Smell (no drawing registered" in render_payload(Smell())
    shows(Smell)(lambda payload: "roses")
    assert render_payload(Smell()) == "roses"
