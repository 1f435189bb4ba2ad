"""Sounds through the gateway: lying headers, bombs, truncation, odd codings, and pitch kept through all of them."""

from __future__ import annotations

import base64
import io
import struct

import numpy as np
import pytest
import soundfile
import torch

from omniloom.errors import MediaError
from omniloom.media import Audio, Limits, load
from omniloom.media.mp3 import frame_ends
from omniloom.media.transforms import log_mel

from .makers import encode_audio, encode_video, tone, wav_with_size


def refusal(source: object, **options: object) -> MediaError:
    with pytest.raises(MediaError) as caught:
        load(source, "audio", **options)
    return caught.value


def pitch_hz(audio: Audio) -> float:
    mono_S = audio.mono(16_000)
    spectrum = np.abs(np.fft.rfft(mono_S * np.hanning(len(mono_S)), 1 << 17))
    return float(spectrum.argmax()) * 16_000 / (1 << 17)


def test_a_data_prefix_in_base64_is_refused_with_a_hint() -> None:
    text = "data:audio/wav;base64," + base64.b64encode(encode_audio(tone())).decode()
    error = refusal({"base64": text})
    assert error.code == "invalid_audio" and "data_uri" in error.message
    assert load(text, "audio").rate_hz == 16_000


@pytest.mark.parametrize("fmt", ["MP3", "FLAC", "OGG"])
def test_a_wrong_declared_format_does_not_matter(fmt: str) -> None:
    uri = "data:audio/wav;base64," + base64.b64encode(encode_audio(tone(1.0), fmt=fmt)).decode()
    assert pitch_hz(load(uri, "audio")) == pytest.approx(440, rel=0.01)


@pytest.mark.parametrize(
    ("size", "samples"), [(0xFFFFFFFF, 800), (0xFFFFFFFE, 800), (0x7FFFFFFF, 800), (1601, 800), (1599, 799), (3, 1)]
)
def test_a_wav_whose_size_lies_is_clipped_to_its_real_length(size: int, samples: int) -> None:
    content = wav_with_size(encode_audio(tone(0.05), subtype="PCM_16"), size)
    assert load(content, "audio").samples.shape == (1, samples)


def test_a_wav_whose_size_is_zero_is_refused() -> None:
    assert refusal(wav_with_size(encode_audio(tone(0.05)), 0)).code == "invalid_audio"


def test_hours_in_a_small_flac_are_refused_from_the_header() -> None:
    content = encode_audio(np.zeros((4000 * 700, 1), np.float32), 4000, "FLAC")
    assert len(content) < 100_000
    assert refusal(content).code == "audio_too_long"
    assert load(content, "audio", limits=Limits(audio_s=701)).duration_s == 700


def test_a_length_that_the_header_does_not_tell_stops_while_decoding() -> None:
    content = bytearray(encode_audio(np.zeros((16_000 * 3, 1), np.float32), 16_000, "FLAC"))
    # STREAMINFO, 36 bits of total samples at bit 172 of the file: 0 means unknown (RFC 9639, section 8.2).
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    assert refusal(bytes(content), limits=Limits(audio_s=2.9)).code == "audio_too_long"
    assert load(bytes(content), "audio", limits=Limits(audio_s=3)).duration_s == 3


def test_decoded_bytes_are_bounded() -> None:
    content = encode_audio(np.zeros((8000 * 20, 2), np.float32), 8000, "FLAC")
    assert refusal(content, limits=Limits(audio_decoded_bytes=8000 * 20 * 8 - 1)).code == "audio_too_large"
    assert load(content, "audio", limits=Limits(audio_decoded_bytes=8000 * 20 * 8)).samples.shape == (2, 160_000)


def test_a_forged_sample_rate_is_refused() -> None:
    content = bytearray(encode_audio(np.zeros((65_536, 8), np.float32), 96_000, "FLAC"))
    # STREAMINFO, 20 bits of sample rate at byte 18: 655 350 Hz makes an hour look like seconds.
    rest = content[20] & 0x0F
    content[18:21] = (655_350 << 4 | rest).to_bytes(3, "big")
    assert refusal(bytes(content)).code in ("audio_too_large", "invalid_audio")
    wav = bytearray(encode_audio(tone(0.1, channels=8)))
    at = bytes(wav).index(b"fmt ") + 12
    wav[at : at + 4] = struct.pack("<I", 655_350)
    assert refusal(bytes(wav)).code == "audio_too_large"


@pytest.mark.parametrize(("rate_hz", "code"), [(0, "invalid_audio"), (1, "invalid_audio"), (2**31, "invalid_audio")])
def test_impossible_rates_are_refused(rate_hz: int, code: str) -> None:
    wav = bytearray(encode_audio(tone(0.1)))
    at = bytes(wav).index(b"fmt ") + 12
    wav[at : at + 4] = struct.pack("<I", rate_hz)
    assert refusal(bytes(wav)).code in (code, "audio_too_large")


def test_nine_channels_are_refused() -> None:
    assert refusal(encode_audio(tone(0.1, channels=9))).code == "audio_too_large"


BOMB = encode_audio(np.zeros((8000 * 60, 1), np.float32), 8000, "FLAC")


@pytest.mark.parametrize("form", ["bytes", "uri", "base64", "path", "payload", "array"])
def test_the_same_bomb_meets_the_same_verdict_on_every_way_in(form: str, tmp_path) -> None:
    text = base64.b64encode(BOMB).decode()
    (tmp_path / "x").write_bytes(BOMB)
    zeros = np.zeros((1, 8000 * 60), np.float32)
    source = {
        "bytes": BOMB,
        "uri": f"data:audio/flac;base64,{text}",
        "base64": {"base64": text},
        "path": tmp_path / "x",
        "payload": Audio(zeros, 8000),
        "array": {"samples": zeros, "rate_hz": 8000},
    }[form]
    assert refusal(source, limits=Limits(audio_s=59)).code == "audio_too_long"


@pytest.mark.parametrize(("fmt", "subtype"), [("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", None)])
@pytest.mark.parametrize("keep", [0.95, 0.6, 0.1])
def test_truncated_sounds_are_refused(fmt: str, subtype: str | None, keep: float) -> None:
    content = encode_audio(tone(2.0), 16_000, fmt, subtype)
    assert refusal(content[: int(len(content) * keep)]).code == "invalid_audio"


def test_a_truncated_mp3_without_a_length_header_is_refused() -> None:
    content = encode_audio(tone(2.0), 16_000, "MP3")
    frames = content[next(frame_ends(content, 0)) :]  # behind the first frame, which holds the length
    assert load(frames, "audio").duration_s == pytest.approx(2.0, abs=0.1)
    assert refusal(frames[:-7]).code == "invalid_audio"


def test_no_samples_are_refused() -> None:
    assert refusal(encode_audio(np.zeros((0, 1), np.float32))).code == "invalid_audio"
    assert refusal({"samples": np.zeros((1, 0), np.float32), "rate_hz": 16_000}).code == "invalid_audio"


@pytest.mark.parametrize("samples", [1, 2, 160])
def test_very_short_sounds_give_finite_features(samples: int) -> None:
    audio = load(encode_audio(tone(samples / 16_000)), "audio")
    assert audio.samples.shape == (1, samples)
    assert torch.isfinite(log_mel(torch.from_numpy(audio.mono(16_000)))).all()
    assert len(Audio(audio.samples, 48_000).mono(16_000)) >= 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused(value: float) -> None:
    samples = tone(0.1)
    samples[7] = value
    assert refusal(encode_audio(samples, subtype="FLOAT")).code == "invalid_audio"


def test_denormal_samples_are_samples() -> None:
    content = encode_audio(np.full((100, 1), 1e-40, np.float32), subtype="FLOAT")
    assert load(content, "audio").samples.max() == np.float32(1e-40)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_every_wav_coding_keeps_the_pitch(subtype: str, channels: int) -> None:
    audio = load(encode_audio(tone(0.5, channels=channels), subtype=subtype), "audio")
    assert audio.samples.shape == (channels, 8000)
    assert pitch_hz(audio) == pytest.approx(440, rel=0.01)
    assert np.abs(audio.samples).max() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("rate_hz", [8000, 11_025, 22_050, 44_100, 48_000, 96_000, 12_345])
def test_every_rate_keeps_the_pitch(rate_hz: int) -> None:
    audio = load(encode_audio(tone(0.5, rate_hz), rate_hz), "audio")
    assert audio.rate_hz == rate_hz
    assert abs(len(audio.mono(16_000)) - 8000) <= 1
    assert pitch_hz(audio) == pytest.approx(440, rel=0.01)


@pytest.mark.parametrize("fmt", ["mp4", "ipod", "webm", "matroska"])
def test_the_sound_of_a_container_keeps_the_pitch(fmt: str) -> None:
    audio = load(encode_video(fmt=fmt, codec=None, with_sound_s=0.5), "audio")
    assert audio.rate_hz == 48_000
    assert audio.duration_s == pytest.approx(0.5, abs=0.03)
    assert pitch_hz(audio) == pytest.approx(440, rel=0.01)


def test_a_video_without_sound_has_no_audio() -> None:
    assert refusal(encode_video()).code == "no_audio_stream"


@pytest.mark.parametrize(
    "samples", [np.zeros, np.ones, lambda n: np.sign(np.sin(np.arange(n))), lambda n: np.full(n, 0.3)]
)
def test_silence_clipping_and_offset_load_with_finite_features(samples) -> None:
    audio = load(encode_audio(samples(4000).astype(np.float32)[:, None]), "audio")
    assert torch.isfinite(log_mel(torch.from_numpy(audio.mono(16_000)))).all()


FOREIGN = {
    "iamf": b"\xf8\x06iamf\x00\x00" + bytes(50),
    "iamf in mp4": b"\x00\x00\x00\x14ftypiamf" + bytes(4) + b"iamf",
    "iamf track": b"\x00\x00\x00\x10ftypisom" + bytes(4) + b"\x00\x00\x00\x18moov\x00\x00\x00\x10iacb" + bytes(8),
    "aiff": b"FORM\x00\x00\x00\x10AIFFCOMM",
    "au": b".snd" + bytes(30),
    "voc": b"Creative Voice File\x1a" + bytes(20),
    "amr": b"#!AMR\n" + bytes(20),
    "midi": b"MThd" + bytes(20),
    "playlist": b"#EXTM3U\nfile:///etc/passwd\n",
    "adts": b"\xff\xf1\x50\x80" + bytes(40),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_formats_outside_the_list_are_refused_before_a_decoder_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*args: object, **options: object) -> None:
        raise AssertionError("a decoder was asked")

    monkeypatch.setattr("omniloom.media.audio.soundfile.SoundFile", decode)
    monkeypatch.setattr("omniloom.media.containers.av.open", decode)
    assert refusal(FOREIGN[name]).code == "unsupported_media_type"


def test_a_huge_id3_tag_is_bounded_by_the_byte_limit() -> None:
    mp3 = encode_audio(tone(1.0), 16_000, "MP3")
    size = 30 << 20
    head = b"ID3\x04\x00\x00" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    assert refusal(head + bytes(size) + mp3).code == "audio_too_large"
    assert refusal(head + mp3).code == "invalid_audio"  # declares 30 MiB that are not there


def test_a_small_id3_tag_is_skipped() -> None:
    head = b"ID3\x04\x00\x00" + bytes((0, 0, 1, 0))
    assert pitch_hz(load(head + bytes(128) + encode_audio(tone(1.0), 16_000, "MP3"), "audio")) == pytest.approx(
        440, rel=0.01
    )


def test_arrays_of_integers_are_scaled() -> None:
    audio = load({"samples": np.array([-32_768, 16_384], np.int16), "rate_hz": 8000}, "audio")
    assert audio.samples.tolist() == [[-1.0, 0.5]]
    audio = load({"samples": torch.tensor([[0.25], [0.5]], dtype=torch.bfloat16), "rate_hz": np.int64(8000)}, "audio")
    assert audio.samples.tolist() == [[0.25], [0.5]] and audio.rate_hz == 8000


@pytest.mark.parametrize(
    "source",
    [
        {"samples": np.zeros(9, np.uint8), "rate_hz": 8000},
        {"samples": np.zeros((1, 1, 9), np.float32), "rate_hz": 8000},
        {"samples": np.zeros(9, np.float32), "rate_hz": 8000.5},
        {"samples": np.zeros(9, np.float32), "rate_hz": True},
        {"samples": [["a"]], "rate_hz": 8000},
    ],
)
def test_arrays_that_are_no_sound_are_refused(source: dict[str, object]) -> None:
    assert refusal(source).code == "invalid_audio"


def test_an_array_without_a_rate_is_refused() -> None:
    assert refusal(np.zeros(9, np.float32)).code == "unsupported_source"


def test_digest_tells_rate_and_channels_apart() -> None:
    samples = np.arange(8, dtype=np.float32)
    made = [Audio(samples.reshape(1, 8), 8000), Audio(samples.reshape(2, 4), 8000), Audio(samples.reshape(1, 8), 8001)]
    assert len({audio.digest() for audio in made}) == 3


def test_rf64_is_read_as_wav() -> None:
    out = io.BytesIO()
    soundfile.write(out, tone(0.1), 16_000, format="RF64", subtype="PCM_16")
    assert load(out.getvalue(), "audio").samples.shape == (1, 1600)


def test_an_mp3_of_random_bytes_behind_a_frame_head_is_refused() -> None:
    noise = np.random.default_rng(0).bytes(5000)
    assert refusal(b"\xff\xfb\x90\x00" + noise).code == "invalid_audio"
