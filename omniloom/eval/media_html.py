"""Media as HTML that needs nothing beside the page: pictures and sounds as data URIs, the rest as drawings.

One table says how a payload type is shown. A new kind of payload adds its line:

    @shows(Thermal)
    def thermal(payload: Thermal) -> Markup: ...
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image as PILImage

from omniloom.eval.svg import lines, scatter, waveform
from omniloom.media import Audio, Image, Map, Points, Series, Video, to_data_uri

__all__ = ["RENDERERS", "render_payload", "shows"]

RENDERERS: dict[type, Callable[[Any], Markup]] = {}
SIDE_PX = 288  # longer sides are shrunk: a report of a hundred photographs stays a few megabytes
SOUND_S = 20.0  # longer sounds are drawn whole and played up to here
PNG_CHARACTERS = 50_000  # longer data URIs are photographs, which JPEG holds in a tenth


def shows(payload_type: type) -> Callable[[Callable[[Any], Markup]], Callable[[Any], Markup]]:
    """Register how payloads of a type are shown; a later registration replaces an earlier one."""

    def register(render: Callable[[Any], Markup]) -> Callable[[Any], Markup]:
        RENDERERS[payload_type] = render
        return render

    return register


def render_payload(payload: Any) -> Markup:
    """The payload as HTML; a type that nobody registered is shown by its name, and said to be so."""
    for base in type(payload).__mro__:
        if base in RENDERERS:
            return RENDERERS[base](payload)
    return Markup('<p class="unshown">a {} (no drawing registered for this type)</p>').format(type(payload).__name__)


@shows(Image)
def image(payload: Image) -> Markup:
    """The picture; tiny ones are enlarged with square pixels."""
    height, width = payload.pixels.shape[:2]
    return _picture(payload.pixels, SIDE_PX) + Markup("<figcaption>{} × {} px</figcaption>").format(width, height)


@shows(Audio)
def audio(payload: Audio) -> Markup:
    """The waveform and a player."""
    samples_S = payload.mono(payload.rate_hz)
    played = samples_S[: int(SOUND_S * payload.rate_hz)]
    note = f", first {SOUND_S:g} s playable" if len(played) < len(samples_S) else ""
    channels = f", {payload.samples.shape[0]} channels" if payload.samples.shape[0] > 1 else ""
    caption = f"{payload.duration_s:.2f} s at {payload.rate_hz / 1000:g} kHz{channels}{note}"
    sound = to_data_uri(Audio(played[None], payload.rate_hz))
    player = Markup('<audio controls preload="metadata" src="{}"></audio><figcaption>{}</figcaption>')
    return waveform(samples_S, payload.duration_s) + player.format(sound, caption)


@shows(Series)
def series(payload: Series) -> Markup:
    """Every channel over time."""
    steps, channels = payload.values.shape
    span = f"{steps / payload.rate_hz:.2f} s at {payload.rate_hz:g} Hz" if payload.rate_hz else f"{steps} steps"
    named = f"{channels} channel" + ("s" if channels > 1 else "")
    caption = f"{named}, {span}, {payload.values.min():.3g} to {payload.values.max():.3g}"
    return lines(payload.values, caption) + Markup("<figcaption>{}</figcaption>").format(caption)


@shows(Map)
def map_of_numbers(payload: Map) -> Markup:
    """The first channel in greys, its least number black and its largest white."""
    channels, height, width = payload.values.shape
    first = payload.values[0].astype(np.float64)
    span = max(float(np.ptp(first)), 1e-12)
    greys = ((first - first.min()) / span * 255).round().astype(np.uint8)
    named = f"{channels} channel" + ("s" if channels > 1 else "")
    caption = f"{width} × {height} px, {named}, {payload.values.min():.3g} to {payload.values.max():.3g}"
    picture = _picture(np.repeat(greys[..., None], 3, axis=2), SIDE_PX)
    return picture + Markup("<figcaption>{}</figcaption>").format(caption)


@shows(Points)
def points(payload: Points) -> Markup:
    """Two views of the cloud."""
    return scatter(payload.xyz) + Markup("<figcaption>{} points</figcaption>").format(len(payload.xyz))


@shows(Video)
def video(payload: Video) -> Markup:
    """A strip of frames with their times, and the sound if there is one."""
    last = len(payload.frames) - 1
    chosen = np.unique(np.linspace(0, last, min(6, last + 1)).round().astype(int))
    frames = Markup("").join(
        Markup("<span>{}<small>{:.2f} s</small></span>").format(_picture(payload.frames[k], 112), payload.times_s[k])
        for k in chosen
    )
    caption = Markup("<figcaption>{} of {} frames</figcaption>").format(len(chosen), len(payload.frames))
    sound = audio(payload.audio) if payload.audio is not None else Markup("")
    return Markup('<div class="strip-frames">{}</div>').format(frames) + caption + sound


def _picture(pixels: np.ndarray, side_px: int) -> Markup:
    picture = PILImage.fromarray(pixels)
    width, height = picture.size
    if max(width, height) > side_px:
        scale = side_px / max(width, height)
        smaller = max(1, round(width * scale)), max(1, round(height * scale))
        picture = picture.resize(smaller, PILImage.Resampling.LANCZOS)
    uri = to_data_uri(Image(np.asarray(picture)))
    if len(uri) > PNG_CHARACTERS:
        uri = _jpeg_uri(picture)
    style = "tiny" if max(width, height) <= 64 else "photo"
    tag = Markup('<img class="{}" src="{}" alt="picture of {} by {} pixels" width="{}" height="{}">')
    return tag.format(style, uri, width, height, *picture.size)


def _jpeg_uri(picture: PILImage.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=86)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
