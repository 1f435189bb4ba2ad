"""The task of two media: neither of them alone, nor their order, says anything about the answer."""

from __future__ import annotations

from collections import Counter

from omniloom.starter.images import DIGITS
from omniloom.starter.pairs import balanced_pairs

_IMAGES = {digit: [(f"{digit}-{i}.png", "block") for i in range(5)] for digit in DIGITS}
_SOUNDS = {digit: [(f"{digit}-{i}.wav", "voice") for i in range(5)] for digit in DIGITS}


def test_every_picture_and_every_sound_matches_as_often_as_not() -> None:
    pairs = balanced_pairs(_IMAGES, _SOUNDS, 3, "key")
    assert len(pairs) == 2 * 3 * 50
    for column in (0, 2):
        uses = Counter((pair[column], pair[4]) for pair in pairs)
        assert set(uses.values()) == {3} and len(uses) == 100


def test_the_answer_is_whether_the_digits_are_equal() -> None:
    for (image, _), seen, (sound, _), heard, is_match in balanced_pairs(_IMAGES, _SOUNDS, 2, "key"):
        assert is_match == (seen == heard)
        assert image.startswith(seen) and sound.startswith(heard)
