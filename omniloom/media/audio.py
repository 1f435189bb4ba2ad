"""Sounds: WAV, FLAC, Ogg (Vorbis, Opus), MP3, and the sound of MP4 / M4A and Matroska / WebM become `Audio`.

Samples keep their rate and channels; integers become floats in -1..1. Two bounds hold: what the header declares, before
the buffer is reserved, and what the decoder really gives, block by block. A WAV whose data size lies is clipped to its
real length; a size of 0 leaves no samples and is refused.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import av
import numpy as np
import soundfile

from ..errors import MediaError
from .codes import foreign_decoder
from .containers import AUDIO_CODECS, Container, open_container
from .formats import check_whole, require_format
from .limits import Limits
from .options import LoadOptions
from .payloads import Audio
from .tensors import to_numpy

__all__ = ["AUDIO_FORMATS", "AudioCollector", "decode_audio_stream", "load_audio"]

AUDIO_FORMATS = ("wav", "flac", "ogg", "mp3", "mp4", "matroska")
_BROKEN = "the audio data are broken or truncated. Record or convert the sound again."
_LIBRARY_FORMATS = {"WAV", "WAVEX", "RF64", "FLAC", "OGG"}
_BLOCK_SAMPLES = 65_536
_INTEGER_SCALES = {np.dtype(np.int16): 2.0**-15, np.dtype(np.int32): 2.0**-31}


def load_audio(source: object, options: LoadOptions) -> Audio:
    """Bytes, an Audio, or {"samples": array (S,) or (C, S), "rate_hz": int}; int16 and int32 are scaled to -1..1.

    Raises:
        MediaError: `unsupported_media_type`, `audio_too_large`, `audio_too_long`, `no_audio_stream`, `invalid_audio`,
            `unsupported_source`.
    """
    options.refuse_sampling("audio")
    limits = options.limits
    if isinstance(source, Audio):
        AudioCollector(source.rate_hz, len(source.samples), source.samples.shape[1], limits)
        return source
    if isinstance(source, bytes):
        limits.check_bytes("audio", len(source))
        found = require_format(source, "audio", AUDIO_FORMATS)
        check_whole(source, found, "invalid_audio")
        if found in ("mp4", "matroska", "mp3") or (found == "flac" and _is_streamed_flac(source)):
            return decode_audio_stream(open_container(source, found, "invalid_audio"), limits)[0]
        return _decode_file(source, limits)
    if isinstance(source, Mapping) and set(source) == {"samples", "rate_hz"}:
        return _from_array(source["samples"], source["rate_hz"], limits)
    message = 'a sound is read from a path, bytes, a data URI or {"samples": array (C, S), "rate_hz": int}.'
    raise MediaError("unsupported_source", message)


class AudioCollector:
    """Gathers decoded blocks into one (C, S) array and stops at the limits.

    Args:
        rate_hz, channels: as declared; checked here.
        declared_samples: per channel, 0 if unknown. Checked before the buffer is reserved; never believed afterwards.
    Raises:
        MediaError: `audio_too_long`, `audio_too_large`, `invalid_audio`.
    """

    def __init__(self, rate_hz: int, channels: int, declared_samples: int, limits: Limits) -> None:
        if rate_hz < limits.audio_min_rate_hz:
            message = (
                f"the sample rate is {rate_hz} Hz; at least {limits.audio_min_rate_hz} is read. Resample it first."
            )
            raise MediaError("invalid_audio", message)
        if rate_hz > limits.audio_max_rate_hz or channels > limits.audio_channels or channels < 1:
            got = f"the sound has {channels} channels at {rate_hz} Hz"
            most = f"1 to {limits.audio_channels} channels at up to {limits.audio_max_rate_hz} Hz are read"
            raise MediaError("audio_too_large", f"{got}; {most}. Convert it first.")
        self.rate_hz = rate_hz
        self.channels = channels
        self._limits = limits
        self._length = 0
        self.check_length(declared_samples)
        self._samples_CS = np.empty((channels, max(declared_samples, _BLOCK_SAMPLES)), np.float32)

    def check_length(self, samples: int) -> None:
        """Refuse a sound of `samples` per channel if it is too long or too large."""
        limits = self._limits
        if samples > limits.audio_s * self.rate_hz:
            message = f"the sound lasts over {limits.audio_s:g} s, the limit. Split it, or raise audio_s."
            raise MediaError("audio_too_long", message)
        if samples * self.channels * 4 > limits.audio_decoded_bytes:
            message = (
                f"the decoded sound exceeds {limits.audio_decoded_bytes} bytes. Use fewer channels or a lower rate."
            )
            raise MediaError("audio_too_large", message)

    def add(self, block_CS: np.ndarray) -> None:
        """Append decoded samples (C, S)."""
        end = self._length + block_CS.shape[1]
        self.check_length(end)
        if end > self._samples_CS.shape[1]:
            grown_CS = np.empty((self.channels, max(end, 2 * self._samples_CS.shape[1])), np.float32)
            grown_CS[:, : self._length] = self._samples_CS[:, : self._length]
            self._samples_CS = grown_CS
        self._samples_CS[:, self._length : end] = block_CS
        self._length = end

    def finish(self) -> Audio:
        """The sound that was gathered."""
        samples_CS = self._samples_CS[:, : self._length]
        return Audio(np.ascontiguousarray(samples_CS), self.rate_hz)


def _is_streamed_flac(content: bytes) -> bool:
    # 36 bits of total samples, 0 where the encoder did not know them (RFC 9639, section 8.2); libsndfile fails on that.
    return content[21] & 0x0F == 0 and not any(content[22:26]) if len(content) > 26 else False


def _decode_file(content: bytes, limits: Limits) -> Audio:
    with foreign_decoder("invalid_audio", _BROKEN), soundfile.SoundFile(io.BytesIO(content)) as file:
        if file.format not in _LIBRARY_FORMATS:
            raise MediaError("unsupported_media_type", "the sound is not WAV, FLAC or Ogg. Convert it first.")
        declared = max(file.frames, 0)
        sound = AudioCollector(file.samplerate, file.channels, declared, limits)
        length = 0
        while len(block_SC := file.read(_BLOCK_SAMPLES, dtype="float32", always_2d=True)):
            sound.add(block_SC.T)
            length += len(block_SC)
    if length < declared:
        raise MediaError("invalid_audio", _BROKEN)
    return sound.finish()


def decode_audio_stream(container: Container, limits: Limits) -> tuple[Audio, float]:
    """The first sound stream of a container, and the time of its first sample in seconds of the container's clock.

    The container is closed afterwards.

    Raises:
        MediaError: `no_audio_stream`, `unsupported_media_type` for a codec outside the list, and as in `load_audio`.
    """
    with container, foreign_decoder("invalid_audio", _BROKEN):
        if not container.streams.audio:
            raise MediaError("no_audio_stream", "the container holds no sound. Pass a file with sound.")
        stream = container.streams.audio[0]
        if stream.codec_context.name not in AUDIO_CODECS:
            raise MediaError(
                "unsupported_media_type", "the sound's codec is not on the list. Convert it to AAC or Opus."
            )
        # An MP3 has no duration; what the demuxer gives is an estimate from the first bit rates.
        ticks = stream.duration if container.format.name != "mp3" else None
        declared_s = float(ticks * stream.time_base) if ticks and stream.time_base else 0.0
        rate_hz = stream.codec_context.sample_rate
        sound = AudioCollector(rate_hz, stream.codec_context.channels, int(declared_s * rate_hz), limits)
        start_s: float | None = None
        planar = av.AudioResampler(format="fltp")
        for frame in container.decode(stream):
            if frame.sample_rate != sound.rate_hz or frame.layout.nb_channels != sound.channels:
                raise MediaError(
                    "invalid_audio", "the sound changes its rate or channels on the way. Convert it first."
                )
            if start_s is None:
                start_s = frame.time or 0.0
            for part in planar.resample(frame):
                sound.add(part.to_ndarray())
    return sound.finish(), start_s or 0.0


def _from_array(samples: object, rate_hz: object, limits: Limits) -> Audio:
    with foreign_decoder("invalid_audio", "samples are not an array of numbers."):
        values = to_numpy(samples)
    if values.ndim == 1:
        values = values[None]
    if values.ndim != 2 or isinstance(rate_hz, bool) or not isinstance(rate_hz, int | np.integer):
        message = f"samples have shape {values.shape}; expected (S,) or (C, S) and a whole rate_hz."
        raise MediaError("invalid_audio", message)
    if values.dtype not in _INTEGER_SCALES and values.dtype.kind != "f":
        message = f"samples have dtype {values.dtype}; expected floats in -1..1, int16 or int32."
        raise MediaError("invalid_audio", message)
    AudioCollector(int(rate_hz), values.shape[0], values.shape[1], limits)
    scale = np.float32(_INTEGER_SCALES.get(values.dtype, 1.0))
    return Audio(np.ascontiguousarray(values.astype(np.float32) * scale), int(rate_hz))
