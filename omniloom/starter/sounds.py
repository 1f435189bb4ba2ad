"""Data sets of sound: spoken digits and words, and instruments.

Speech is synthesised by eSpeak NG in many voices; those of the test speak at rates that training never hears.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from omniloom.starter.espeak import ACCENTS, VARIANTS, Espeak
from omniloom.starter.images import DIGITS
from omniloom.starter.records import SPEECH_RATE_HZ, Item, Prompts, chooser, write_sets, write_wav
from omniloom.starter.soundfont import SoundFont

__all__ = ["INSTRUMENTS", "WORDS", "music", "spoken_digits", "spoken_words"]

WORDS = (
    *DIGITS, "yes", "no", "up", "down", "left", "right", "stop", "go", "cat", "dog", "bird", "house", "tree", "water",
    "music",
)  # fmt: skip

INSTRUMENTS: dict[str, int] = {
    "piano": 0, "xylophone": 13, "organ": 19, "accordion": 21, "guitar": 24, "bass": 33, "violin": 40, "harp": 46,
    "choir": 52, "trumpet": 56, "saxophone": 66, "clarinet": 71, "flute": 73, "sitar": 104,
}  # fmt: skip
"""Fourteen instruments by their General MIDI programs."""

_DIGIT_PROMPTS = Prompts(
    (
        "Which digit is spoken?", "What number do you hear?", "Write down the spoken digit.", "Which number is said?",
        "Listen: which digit is it?", "What digit does the speaker say?",
    ),
    (
        "Tell me the number in this recording.", "Somebody says a numeral; which one?",
        "Transcribe the digit you are hearing.", "What figure is being read out?",
    ),
)  # fmt: skip
_WORD_PROMPTS = Prompts(
    (
        "Which word is spoken?", "What do you hear?", "Write down the spoken word.", "What word is said?",
        "Listen: which word is it?", "What does the speaker say?",
    ),
    (
        "Tell me the word in this recording.", "Somebody says one word; which one?", "Transcribe the audio.",
        "What is being said here?",
    ),
)  # fmt: skip
_MUSIC_PROMPTS = Prompts(
    (
        "Which instrument is playing?", "What instrument do you hear?", "Name the instrument.",
        "Listen: which instrument is it?", "What is this melody played on?", "Which instrument makes this sound?",
    ),
    (
        "Tell me what is being played in this recording.", "Somebody plays a tune; on what?",
        "Identify the instrument.", "What would a musician hold to make this sound?",
    ),
)  # fmt: skip

_TEST_VARIANTS = 14
_TRAIN_RATES_WPM = (130, 145, 175, 190, 215, 235)
_TEST_RATES_WPM = (115, 160, 200, 255)
_SILENCE = 0.02  # of the peak: quieter than this is before or after the word


def _voices(side: str) -> list[str]:
    """The variants of one side, mixed once: no variant speaks on both."""
    variants = list(VARIANTS)
    chooser("voices").shuffle(variants)
    return variants[:_TEST_VARIANTS] if side == "test" else variants[_TEST_VARIANTS:]


def _recorded(samples: np.ndarray, rate_hz: int, key: tuple[object, ...]) -> np.ndarray:
    """A word as a microphone might give it: at 16 kHz, some silence around it, some level, some noise."""
    import soxr

    sound = soxr.resample(samples, rate_hz, SPEECH_RATE_HZ, quality="HQ")
    loud = np.flatnonzero(np.abs(sound) > _SILENCE * np.abs(sound).max())
    sound = sound[loud[0] : loud[-1] + 1]
    choose = chooser("recorded", *key)
    before, after = (round(choose.uniform(0.04, 0.15) * SPEECH_RATE_HZ) for _ in range(2))
    sound = np.pad(sound / np.abs(sound).max() * choose.uniform(0.3, 0.9), (before, after))
    noise = np.random.default_rng(choose.getrandbits(32)).standard_normal(len(sound))
    level = np.sqrt(np.mean(sound**2)) * 10 ** (-choose.uniform(20, 40) / 20)
    return sound + noise * level


def _spoken(folder: Path, task: str, prompts: Prompts, words: tuple[str, ...], takes: Mapping[str, int]) -> None:
    sides = []
    with Espeak() as espeak:
        for side, rates in (("train", _TRAIN_RATES_WPM), ("test", _TEST_RATES_WPM)):
            items = []
            for variant in _voices(side):
                for word in words:
                    for take in range(takes[side]):
                        choose = chooser("spoken", task, variant, word, take)
                        accent, rate_wpm, pitch = choose.choice(ACCENTS), choose.choice(rates), choose.randint(25, 75)
                        id_ = f"{word}-{variant}-{take}"
                        samples, rate_hz = espeak.speak(
                            word, voice=f"{accent}+{variant}", rate_wpm=rate_wpm, pitch=pitch
                        )
                        write_wav(folder / f"media/{id_}.wav", _recorded(samples, rate_hz, (task, id_)))
                        meta = {"voice": f"{accent}+{variant}", "rate_wpm": str(rate_wpm), "pitch": str(pitch)}
                        items.append(Item(id_, variant, word, (("speech", f"media/{id_}.wav"),), meta=meta))
            chooser(task, side).shuffle(items)
            sides.append(items)
    write_sets(folder, task, prompts, *sides)


def spoken_digits(folder: Path, assets: Mapping[str, Path]) -> None:
    """The ten digits, five takes by each voice of training, four by each of the test; group is the voice."""
    _spoken(folder, "spoken-digits", _DIGIT_PROMPTS, DIGITS, {"train": 5, "test": 4})


def spoken_words(folder: Path, assets: Mapping[str, Path]) -> None:
    """Twenty-five words, the digits among them, two takes by each voice; group is the voice."""
    _spoken(folder, "spoken-words", _WORD_PROMPTS, WORDS, {"train": 2, "test": 2})


_LOW_KEY, _HIGH_KEY = 48, 83
_VELOCITIES = {"train": (60, 80, 100, 120), "test": (70, 90, 110)}
_NOTES, _NOTE_S, _RING_S = 3, 0.3, 0.3


def _melody(font: SoundFont, program: int, side: str, key: tuple[object, ...]) -> tuple[np.ndarray, str]:
    """(samples, its keys and velocity) of three notes; every third key of the range belongs to the test alone."""
    choose = chooser("melody", *key)
    keys = [k for k in range(_LOW_KEY, _HIGH_KEY + 1) if (k % 3 == 0) == (side == "test")]
    start = choose.randrange(len(keys) - 4)
    notes = [keys[start + choose.randrange(5)] for _ in range(_NOTES)]
    velocity = choose.choice(_VELOCITIES[side])
    step = round(_NOTE_S * SPEECH_RATE_HZ)
    sound = np.zeros(step * _NOTES + round(_RING_S * SPEECH_RATE_HZ), dtype=np.float32)
    for place, note in enumerate(notes):
        played = font.note(program, note, velocity, _NOTE_S, rate_hz=SPEECH_RATE_HZ)
        sound[place * step : place * step + len(played)] += played[: len(sound) - place * step]
    level = choose.uniform(0.3, 0.9) / max(float(np.abs(sound).max()), 1e-6)
    return sound * level, f"{'-'.join(map(str, notes))}-v{velocity}"


def music(folder: Path, assets: Mapping[str, Path], *, train: int = 100, test: int = 40) -> None:
    """Fourteen instruments playing three notes; pitches and velocities of the test are new; group: first pitch."""
    font = SoundFont(assets["timgm6mb"] / "TimGM6mb.sf2")
    sides = []
    for side, count in (("train", train), ("test", test)):
        items = []
        for instrument, program in INSTRUMENTS.items():
            for take in range(count):
                id_ = f"{side}-{instrument}-{take:03d}"
                sound, notes = _melody(font, program, side, (side, instrument, take))
                write_wav(folder / f"media/{id_}.wav", sound)
                group = f"pitch-{notes.split('-')[0]}"
                items.append(Item(id_, group, instrument, (("music", f"media/{id_}.wav"),), meta={"notes": notes}))
        chooser("music", side).shuffle(items)
        sides.append(items)
    write_sets(folder, "music", _MUSIC_PROMPTS, *sides)
