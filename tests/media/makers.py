"""Small media made on the spot, good and bad, for the tests of this room."""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction

import av
import numpy as np
import PIL.Image
import soundfile


def encode_image(image: PIL.Image.Image, fmt: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, fmt, **options)
    return out.getvalue()


def noise_image(height_px: int = 24, width_px: int = 32, seed: int = 0) -> PIL.Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def raw_png(
    width_px: int, height_px: int, *, depth: int = 8, colour: int = 2, data: bytes = b"", extra: bytes = b""
) -> bytes:
    """A PNG of any declared size; `data` is the compressed picture, `extra` chunks before it."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width_px, height_px, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def zeros_deflated(size: int) -> bytes:
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(size >> 20)]
    return b"".join(parts) + packer.flush()


def tone(duration_s: float = 0.25, rate_hz: int = 16_000, channels: int = 1, pitch_hz: float = 440.0) -> np.ndarray:
    """float32 (S, C), as soundfile writes it."""
    times_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    return np.repeat((0.5 * np.sin(2 * np.pi * pitch_hz * times_s)).astype(np.float32)[:, None], channels, axis=1)


def encode_audio(samples_SC: np.ndarray, rate_hz: int = 16_000, fmt: str = "WAV", subtype: str | None = None) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples_SC, rate_hz, format=fmt, subtype=subtype)
    return out.getvalue()


def wav_with_size(content: bytes, size: int) -> bytes:
    """The WAV with another data size in its header."""
    at = content.index(b"data") + 4
    return content[:at] + struct.pack("<I", size) + content[at + 4 :]


def encode_video(
    times_ms: list[int] | None = None,
    *,
    fmt: str = "mp4",
    codec: str | None = "libx264",
    size_px: tuple[int, int] = (32, 24),
    with_sound_s: float = 0.0,
    rotation: int = 0,
    b_frames: int = 0,
    options: dict[str, str] | None = None,
    frames: list[np.ndarray] | None = None,
    sound_start_s: float = 0.0,
) -> bytes:
    """Frame i is grey of value 15 * i, unless `frames` are given; the sound is a tone at 48 kHz, mono."""
    times_ms = list(range(0, 800, 100)) if times_ms is None else times_ms
    out = io.BytesIO()
    container = av.open(out, "w", format=fmt, options=options or {})
    video = sound = None
    if codec is not None:
        video = container.add_stream(codec, rate=10)
        video.width, video.height = size_px
        video.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        if codec == "libx264":
            video.codec_context.max_b_frames = b_frames
            video.options = {"crf": "4", "preset": "ultrafast" if not b_frames else "veryfast"}
        if rotation:
            video.set_display_rotation(rotation)
    if with_sound_s:
        sound = container.add_stream("aac" if fmt in ("mp4", "ipod") else "libopus", rate=48_000, layout="mono")
    if video is not None:
        for index, time_ms in enumerate(times_ms):
            pixels = (
                np.full((size_px[1], size_px[0], 3), 15 * index % 256, np.uint8) if frames is None else frames[index]
            )
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode())
    if sound is not None:
        samples = tone(with_sound_s, 48_000)[:, 0]
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp" if fmt != "webm" else "flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, round(sound_start_s * 48_000), Fraction(1, 48_000)
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    container.close()
    return out.getvalue()
