"""A SoundFont is played in tune, looped, louder when struck harder, and silent after release."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from omniloom.errors import MissingAssetError
from omniloom.starter.soundfont import SoundFont

_RATE_HZ = 16_000
_PERIOD = 40  # samples at 8 kHz: 200 Hz, recorded as key 55 (196 Hz) would be, close enough for a ratio


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _list(name: bytes, *chunks: bytes) -> bytes:
    return _chunk(b"LIST", name + b"".join(chunks))


def _gens(*pairs: tuple[int, int]) -> bytes:
    return b"".join(struct.pack("<Hh", oper, amount) for oper, amount in pairs)


@pytest.fixture
def font(tmp_path: Path) -> SoundFont:
    """One instrument, program 5, keys 40 to 80, from one looped sine recorded at key 60."""
    wave = (np.sin(np.arange(400) * 2 * np.pi / _PERIOD) * 30000).astype("<i2").tobytes() + bytes(92)
    instrument_gens = _gens((43, 40 | 80 << 8), (34, -7973), (38, -1200), (54, 1), (58, 60), (53, 0))
    phdr = struct.pack("<20sHHHIII", b"Sine", 5, 0, 0, 0, 0, 0) + struct.pack("<20sHHHIII", b"EOP", 0, 0, 1, 0, 0, 0)
    pbag = struct.pack("<HHHH", 0, 0, 1, 0)
    pgen = _gens((41, 0), (0, 0))
    inst = struct.pack("<20sH", b"Sine", 0) + struct.pack("<20sH", b"EOI", 1)
    ibag = struct.pack("<HHHH", 0, 0, 6, 0)
    igen = instrument_gens + _gens((0, 0))
    header = struct.pack("<20sIIIIIBbHH", b"sine", 0, 400, _PERIOD, 5 * _PERIOD, 8000, 60, 0, 0, 1)
    shdr = header + struct.pack("<20sIIIIIBbHH", b"EOS", 0, 0, 0, 0, 0, 0, 0, 0, 0)
    names = [b"phdr", b"pbag", b"pmod", b"pgen", b"inst", b"ibag", b"imod", b"igen", b"shdr"]
    tables = [phdr, pbag, bytes(10), pgen, inst, ibag, bytes(10), igen, shdr]
    pdta = _list(b"pdta", *(_chunk(name, table) for name, table in zip(names, tables, strict=True)))
    body = b"sfbk" + _list(b"INFO") + _list(b"sdta", _chunk(b"smpl", wave)) + pdta
    (tmp_path / "toy.sf2").write_bytes(_chunk(b"RIFF", body))
    return SoundFont(tmp_path / "toy.sf2")


def _pitch_hz(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 17))
    return float(np.argmax(spectrum) * _RATE_HZ / (1 << 17))


@pytest.mark.parametrize("key", [48, 60, 61, 72])
def test_a_key_plays_the_recording_at_its_own_pitch(font: SoundFont, key: int) -> None:
    expected_hz = 8000 / _PERIOD * 2 ** ((key - 60) / 12)
    assert _pitch_hz(font.note(5, key, 100, 1.0, rate_hz=_RATE_HZ)) == pytest.approx(expected_hz, rel=2e-3)


def test_a_looped_recording_lasts_as_long_as_the_key_is_held(font: SoundFont) -> None:
    samples = font.note(5, 60, 100, 2.0, rate_hz=_RATE_HZ, release_s=1.0)  # the recording itself lasts 50 ms
    assert np.abs(samples[_RATE_HZ : 2 * _RATE_HZ]).max() > 0.3
    assert np.abs(samples[-1000:]).max() < 0.01


def test_a_harder_strike_is_louder(font: SoundFont) -> None:
    soft, hard = (np.abs(font.note(5, 60, velocity, 0.5, rate_hz=_RATE_HZ)).max() for velocity in (50, 100))
    assert hard == pytest.approx(4 * soft, rel=1e-3)


def test_programs_are_listed_by_number(font: SoundFont) -> None:
    assert font.programs() == {5: "Sine"}


def test_an_unknown_program_or_an_uncovered_key_is_refused(font: SoundFont) -> None:
    with pytest.raises(MissingAssetError, match="no program 6"):
        font.note(6, 60, 100, 0.1, rate_hz=_RATE_HZ)
    with pytest.raises(MissingAssetError, match="does not play key 90"):
        font.note(5, 90, 100, 0.1, rate_hz=_RATE_HZ)


def test_a_file_that_is_no_soundfont_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.sf2").write_bytes(b"RIFF\0\0\0\0WAVE")
    with pytest.raises(MissingAssetError, match="not a SoundFont"):
        SoundFont(tmp_path / "a.sf2")
