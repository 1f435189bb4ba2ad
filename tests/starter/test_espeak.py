"""Speech comes from a process of its own, the same each time."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from omniloom.errors import MissingAssetError
from omniloom.starter import espeak, packages
from omniloom.starter.sounds import _voices


def test_voices_are_every_accent_with_every_variant() -> None:
    names = espeak.voices()
    assert len(names) == len(set(names)) == len(espeak.ACCENTS) * len(espeak.VARIANTS)
    assert "en-us+f1" in names


def test_no_voice_of_the_test_speaks_in_training() -> None:
    assert not set(_voices("train")) & set(_voices("test"))
    assert set(_voices("train")) | set(_voices("test")) == set(espeak.VARIANTS)


def test_a_system_without_library_and_program_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMNILOOM_HOME", str(tmp_path))
    monkeypatch.setattr(packages, "platform_key", lambda: "plan9-vax")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingAssetError, match=r"plan9-vax.*not on the path"):
        espeak.Espeak()


def test_where_there_is_no_library_the_program_speaks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    header = b"RIFF" + bytes(20) + (22050).to_bytes(4, "little") + bytes(8) + b"data" + b"\xff\xff\xff\x7f"
    (tmp_path / "espeak-ng").write_bytes(b"#!/bin/sh\ncat " + str(tmp_path / "sound.wav").encode() + b"\n")
    (tmp_path / "espeak-ng").chmod(0o755)
    (tmp_path / "sound.wav").write_bytes(header + np.array([16384, -16384], dtype="<i2").tobytes())
    monkeypatch.setenv("OMNILOOM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(packages, "platform_key", lambda: "plan9-vax")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with espeak.Espeak() as speaker:
        samples, rate_hz = speaker.speak("seven")
    assert (samples.tolist(), rate_hz) == ([0.5, -0.5], 22050)


@pytest.mark.packaged
def test_a_word_does_not_depend_on_the_words_before_it() -> None:
    with espeak.Espeak() as speaker:
        first, rate_hz = speaker.speak("seven", voice="en-us+f2", rate_wpm=170, pitch=40)
        for other in ("en+m3", "en-029+Storm", "en-us-nyc+zac"):
            speaker.speak("something else entirely", voice=other)
        again, _ = speaker.speak("seven", voice="en-us+f2", rate_wpm=170, pitch=40)
        assert rate_hz == 22050 and 0.2 < len(first) / rate_hz < 1.5
        assert np.array_equal(first, again)
        slower, _ = speaker.speak("seven", voice="en-us+f2", rate_wpm=90, pitch=40)
        assert len(slower) > 1.2 * len(first)


@pytest.mark.packaged
def test_phonemes_are_ipa() -> None:
    assert espeak.phonemes("seven") == "sˈɛvən"


@pytest.mark.packaged
def test_an_unknown_voice_is_refused_and_the_next_word_is_spoken() -> None:
    with espeak.Espeak() as speaker:
        with pytest.raises(MissingAssetError, match="no voice 'xx-yy'"):
            speaker.speak("seven", voice="xx-yy")
        assert len(speaker.speak("seven")[0]) > 1000


@pytest.mark.packaged
def test_a_synthesiser_that_dies_is_an_error_and_the_next_word_is_spoken() -> None:
    with espeak.Espeak() as speaker:
        speaker.speak("seven")
        assert isinstance(speaker._child, subprocess.Popen)
        speaker._child.kill()
        speaker._child.wait()
        with pytest.raises(MissingAssetError, match="ended with status -9"):
            speaker.speak("eight")
        assert len(speaker.speak("nine")[0]) > 1000


@pytest.mark.parametrize(
    ("words", "rate_wpm", "pitch"), [("a\0b", 170, 50), ("a" * 10_001, 170, 50), ("a", 5, 50), ("a", 170, 100)]
)
def test_what_the_library_would_bend_is_refused(words: str, rate_wpm: int, pitch: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        espeak.Espeak._check(words, rate_wpm, pitch)
