"""Speech and phonemes from eSpeak NG, which runs outside this process.

The library comes out of a package by `packages.fetch` and is loaded by one child process (`espeak_child.py`): it is
process-global, under the GPL, and a crash in it must not take training along. Where the package has no library for
the platform, the program `espeak-ng` on the path speaks instead.

Formant synthesis is intelligible and unlimited: accents x variants x rates x pitches give hundreds of voices.
"""

from __future__ import annotations

import atexit
import json
import shutil
import subprocess
import sys
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from omniloom.errors import MissingAssetError
from omniloom.starter.packages import absent_reason, fetch

__all__ = [
    "ACCENTS",
    "PITCHES",
    "RATES_WPM",
    "VARIANTS",
    "Espeak",
    "phonemes",
    "speak",
    "speech_absent_reason",
    "voices",
]

ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc")
"""English as spoken in eight places."""

VARIANTS = (
    "f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8",
    "Alex", "Alicia", "Andrea", "Andy", "Annie", "Denis", "Diogo", "Gene", "Henrique", "Hugo", "Jacky", "Lee", "Marco",
    "Mario", "Michael", "Mike", "Nguyen", "Storm", "anika", "antonio", "aunty", "belinda", "benjamin",
    "boris", "ed", "grandma", "grandpa", "gustave", "ian", "iven", "john", "kaukovalta",
    "linda", "marcelo", "max", "michel", "miguel", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert",
    "sandro", "shelby", "steph", "travis", "victor", "zac",
)  # fmt: skip
"""Speakers: vocal tract, register and timbre. Left out are
whispers, croaks, robots, and variants on the Klatt synthesiser, whose noise differs from call to call."""

RATES_WPM = (80, 450)
"""Slowest and fastest speech, in words a minute."""

PITCHES = (0, 99)
"""Lowest and highest base pitch, in eSpeak's units; 50 is a variant's own."""

_LIBRARIES = ("libespeak-ng.so", "libespeak-ng.dylib", "espeak-ng.dll")
_CHARACTER_LIMIT = 10_000
_TIMEOUT_S = 60.0  # ten thousand characters take two


def voices() -> list[str]:
    """Every accent with every variant, as `speak` takes them: 'en-us+f1', 'en-029+m3', ..."""
    return [f"{accent}+{variant}" for accent in ACCENTS for variant in VARIANTS]


def speech_absent_reason() -> str:
    """Why speech cannot be synthesised on this system; empty if it can."""
    reason = absent_reason("espeak-ng")
    return f"{reason}, and the program espeak-ng is not on the path" if reason and not shutil.which("espeak-ng") else ""


class Espeak:
    """One eSpeak NG, to be closed after use; a child process, or the program run once an utterance."""

    def __init__(self) -> None:
        """Raises: MissingAssetError where neither library nor program can be had."""
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        reason = speech_absent_reason()
        if reason:
            raise MissingAssetError(
                f"speech cannot be synthesised: {reason}. Install espeak-ng with the system's package manager."
            )
        self._folder = fetch("espeak-ng") if not absent_reason("espeak-ng") else None

    def speak(
        self, words: str, *, voice: str = "en-us", rate_wpm: int = 175, pitch: int = 50
    ) -> tuple[np.ndarray, int]:
        """Words to (samples (S,) float32 in -1..1, rate_hz); the same arguments give the same samples.

        Raises:
            MissingAssetError: there is no such voice, or the synthesiser ended.
        """
        self._check(words, rate_wpm, pitch)
        if self._folder is None:
            sound = _program(["--stdout", "-v", voice, "-s", str(rate_wpm), "-p", str(pitch), "--", words])
            return _wav_samples(sound)
        header, sound = self._ask({"do": "speak", "text": words, "voice": voice, "rate_wpm": rate_wpm, "pitch": pitch})
        return np.frombuffer(sound, "<i2").astype(np.float32) / 32768.0, header["rate_hz"]

    def phonemes(self, text: str, *, voice: str = "en-us") -> str:
        """Text to one line of IPA, clauses joined by a space; punctuation is not kept."""
        self._check(text, *RATES_WPM[:1], *PITCHES[:1])
        if self._folder is None:
            return " ".join(_program(["-q", "--ipa", "-v", voice, "--", text]).decode().split())
        return " ".join(self._ask({"do": "phonemes", "text": text, "voice": voice})[0]["phonemes"])

    def close(self) -> None:
        """End the child process; the next call would start another."""
        with self._lock:
            child, self._child = self._child, None
            if child is not None:
                child.stdin.close()  # type: ignore[union-attr]
                child.wait(timeout=10)
                child.stdout.close()  # type: ignore[union-attr]

    def __enter__(self) -> Espeak:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @staticmethod
    def _check(words: str, rate_wpm: int, pitch: int) -> None:
        if len(words) > _CHARACTER_LIMIT or "\0" in words:
            raise ValueError(f"words have {len(words)} characters, expected at most {_CHARACTER_LIMIT} and no NUL.")
        for name, value, (low, high) in (("rate_wpm", rate_wpm, RATES_WPM), ("pitch", pitch, PITCHES)):
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, expected {low} to {high}.")

    def _ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        with self._lock:
            child = self._child or self._start()
            watchdog = threading.Timer(_TIMEOUT_S, child.kill)
            try:
                watchdog.start()
                child.stdin.write(json.dumps(request).encode() + b"\n")  # type: ignore[union-attr]
                child.stdin.flush()  # type: ignore[union-attr]
                line = child.stdout.readline()  # type: ignore[union-attr]
                header = json.loads(line) if line else None
                sound = child.stdout.read(header.get("bytes", 0)) if header else b""  # type: ignore[union-attr]
            except BrokenPipeError:
                header, sound = None, b""
            finally:
                watchdog.cancel()
            if header is None or len(sound) != header.get("bytes", 0):
                self._child = None
                child.kill()
                raise MissingAssetError(
                    f"the speech synthesiser ended with status {child.wait()} on {request['text'][:80]!r}."
                )
        if "error" in header:
            raise MissingAssetError(f"the speech synthesiser refused {request['text'][:80]!r}: {header['error']}.")
        return header, sound

    def _start(self) -> subprocess.Popen[bytes]:
        assert self._folder is not None
        library = next(self._folder / name for name in _LIBRARIES if (self._folder / name).exists())
        script = Path(__file__).with_name("espeak_child.py")
        command = [sys.executable, "-I", str(script), str(library), str(self._folder / "espeak-ng-data")]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        return self._child


@lru_cache(maxsize=1)
def _shared() -> Espeak:
    """The process's one synthesiser: the library is made for one a process, and starting it takes time."""
    espeak = Espeak()
    atexit.register(espeak.close)
    return espeak


def speak(words: str, voice: str = "en-us", rate_wpm: int = 175, pitch: int = 50) -> tuple[np.ndarray, int]:
    """`Espeak.speak` of the process's own synthesiser."""
    return _shared().speak(words, voice=voice, rate_wpm=rate_wpm, pitch=pitch)


def phonemes(text: str, voice: str = "en-us") -> str:
    """`Espeak.phonemes` of the process's own synthesiser."""
    return _shared().phonemes(text, voice=voice)


def _program(arguments: list[str]) -> bytes:
    done = subprocess.run(["espeak-ng", *arguments], capture_output=True, check=False, timeout=120)
    if done.returncode != 0:
        raise MissingAssetError(
            f"espeak-ng failed with status {done.returncode}: {done.stderr.decode(errors='replace').strip()[-200:]}"
        )
    return done.stdout


def _wav_samples(data: bytes) -> tuple[np.ndarray, int]:
    """The samples of a WAV stream, whose header states no length since the program did not know it yet."""
    if data[:4] != b"RIFF" or data[36:40] != b"data":
        raise MissingAssetError(f"espeak-ng wrote no WAV stream but {data[:12]!r}.")
    return np.frombuffer(data[44:], "<i2").astype(np.float32) / 32768.0, int.from_bytes(data[24:28], "little")
