"""Speech out by a voice that reads the text aloud."""

from __future__ import annotations

import numpy as np
import pytest

from omniloom.errors import ConfigError
from omniloom.generators.voice import VoiceGenerator
from omniloom.media import Audio

BEEPER = """
import numpy as np
class Beeper:
    made = 0
    def __init__(self):
        Beeper.made += 1
    def say(self, text):
        return np.full(10 * len(text), 0.5, np.float32), 8000
"""


@pytest.fixture
def voice(tmp_path):
    """A voice that beeps ten samples a letter, from a part file."""
    (tmp_path / "beeper.py").write_text(BEEPER)
    return VoiceGenerator(voice=f"{tmp_path / 'beeper.py'}:Beeper", limit_chars=20)


def test_text_becomes_a_sound_at_the_voices_own_rate(voice):
    sound = voice.render("hello")
    assert isinstance(sound, Audio) and sound.samples.shape == (1, 50) and sound.rate_hz == 8000
    assert np.all(sound.samples == 0.5)


def test_the_voice_is_opened_once(voice):
    voice.render("a")
    voice.render("b")
    assert type(voice._speaker).made == 1


@pytest.mark.parametrize("text", ["", "  \n", "x" * 21])
def test_nothing_and_too_much_are_refused(voice, text):
    with pytest.raises(ConfigError, match="speaks 1 to 20 characters"):
        voice.render(text)


def test_an_unknown_voice_is_refused():
    with pytest.raises(ConfigError, match=r"unknown voice 'jo'. Did you mean 'joe'"):
        VoiceGenerator(voice="jo").render("hi")
