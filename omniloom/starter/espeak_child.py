"""The eSpeak NG library, alone in a process of its own. Run by path; it imports nothing of this package.

Started as `python espeak_child.py LIBRARY DATA_FOLDER`. Reads one JSON request a line from standard input and
answers each with one JSON line on standard output, followed by raw bytes where that line says how many:

    {"do": "speak", "text": "seven", "voice": "en-us+f2", "rate_wpm": 175, "pitch": 50}
        -> {"rate_hz": 22050, "bytes": 31000}  and 16-bit little-endian samples
    {"do": "phonemes", "text": "seven", "voice": "en-us"}
        -> {"phonemes": ["sˈɛvən"]}            one string a clause, in IPA
    anything that fails -> {"error": "..."}

The library is loaded anew for every request and unloaded after it: its static counters (flutter, breath, phase)
go on from one utterance to the next, so that a word would depend on all words before it, even after
espeak_Terminate. Loading takes 4 ms.
"""

from __future__ import annotations

import _ctypes
import ctypes
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

RETRIEVAL = 1  # the library hands samples to the callback instead of a sound card
DONT_EXIT = 0x8000
UTF8 = 1
IPA = 0x02
CHARACTERS = 1
RATE, PITCH = 1, 3
SEED = 1

Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Refused(Exception):
    """The library did not do what the request asks."""


@contextmanager
def loaded(library_path: str, data_folder: str, voice: str) -> Iterator[tuple[Any, int]]:
    """(a fresh library speaking as `voice`, its sample rate)."""
    library = ctypes.CDLL(library_path)
    try:
        rate_hz = library.espeak_Initialize(RETRIEVAL, 0, data_folder.encode(), DONT_EXIT)
        if rate_hz <= 0:
            raise Refused(f"espeak_Initialize failed with status {rate_hz}")
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise Refused(f"there is no voice {voice!r}")
        yield library, rate_hz
    finally:
        library.espeak_Terminate()  # it runs a thread; unloading code that still runs would crash
        getattr(_ctypes, "dlclose" if os.name == "posix" else "FreeLibrary")(library._handle)


def speak(library: Any, request: dict[str, Any]) -> bytes:
    """The samples of the request's text, 16-bit little-endian."""
    chunks: list[bytes] = []

    def keep(samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            chunks.append(ctypes.string_at(samples, count * 2))
        return 0

    callback = Callback(keep)
    library.espeak_SetSynthCallback(callback)
    library.espeak_ng_SetRandSeed(ctypes.c_long(SEED))
    library.espeak_SetParameter(RATE, int(request["rate_wpm"]), 0)
    library.espeak_SetParameter(PITCH, int(request["pitch"]), 0)
    text = request["text"].encode()
    status = library.espeak_Synth(text, len(text) + 1, 0, CHARACTERS, 0, UTF8, None, None)
    library.espeak_Synchronize()
    if status != 0:
        raise Refused(f"espeak_Synth failed with status {status}")
    return b"".join(chunks)


def phonemes(library: Any, text: str) -> list[str]:
    """The clauses of `text` in IPA; the library hands them out one a call and moves the pointer on."""
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    library.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, ctypes.c_int]
    buffer = ctypes.create_string_buffer(text.encode())
    pointer = ctypes.c_void_p(ctypes.addressof(buffer))
    clauses = []
    while pointer.value:
        clauses.append(library.espeak_TextToPhonemes(ctypes.byref(pointer), UTF8, IPA).decode())
    return [clause.strip() for clause in clauses if clause.strip()]


def answer(request: dict[str, Any], library_path: str, data_folder: str) -> tuple[dict[str, Any], bytes]:
    """(header line, raw bytes) for one request; what fails becomes an `error` in the header."""
    try:
        with loaded(library_path, data_folder, request["voice"]) as (library, rate_hz):
            if request["do"] == "phonemes":
                return {"phonemes": phonemes(library, request["text"])}, b""
            sound = speak(library, request)
            return {"rate_hz": rate_hz, "bytes": len(sound)}, sound
    except (Refused, OSError, AttributeError) as error:
        return {"error": str(error)}, b""


if __name__ == "__main__":
    # The library may print; its messages must not fall between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        header, sound = answer(json.loads(line), sys.argv[1], sys.argv[2])
        answers.write(json.dumps(header).encode() + b"\n" + sound)
        answers.flush()
