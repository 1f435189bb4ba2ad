"""A data set that takes two modalities at once: is the spoken digit the one in the picture?

Every picture and every recording is used equally often with answer yes and with answer no, so that neither alone
says anything, nor does the order of the two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from omniloom.starter.cache import copied
from omniloom.starter.images import DIGITS
from omniloom.starter.records import Item, Prompts, chooser, write_sets

__all__ = ["balanced_pairs", "match_two"]

_PROMPTS = Prompts(
    (
        "Is the spoken number the number in the picture?", "Do the picture and the recording show the same digit?",
        "Does the spoken digit match the written one?", "Is the written digit the one that is said?",
        "Are the digit in the image and the digit you hear the same?", "Do sound and picture agree?",
    ),
    (
        "Does the speaker read out what is written?", "Tell me whether voice and image name one number.",
        "Would you say the handwriting and the speech are equal?", "Same numeral in both, yes or no?",
    ),
)  # fmt: skip

_Medium = tuple[str, str]  # path and group
_Labelled = dict[str, list[_Medium]]
_Pair = tuple[_Medium, str, _Medium, str, bool]


def balanced_pairs(images: _Labelled, sounds: _Labelled, rounds: int, key: str) -> list[_Pair]:
    """(image, its digit, sound, its digit, whether they match) for equal numbers of both under each digit.

    In each round every image and every sound occurs once with a match and once without.
    """
    pairs: list[_Pair] = []
    for turn in range(rounds):
        for is_match in (True, False):
            shift = 0 if is_match else 1 + chooser(key, turn).randrange(len(DIGITS) - 1)
            for place, digit in enumerate(DIGITS):
                other = DIGITS[(place + shift) % len(DIGITS)]
                seen, heard = list(images[digit]), list(sounds[other])
                chooser(key, turn, is_match, digit, "seen").shuffle(seen)
                chooser(key, turn, is_match, digit, "heard").shuffle(heard)
                pairs += [(image, digit, sound, other, is_match) for image, sound in zip(seen, heard, strict=True)]
    return pairs


def _labelled(folder: Path, side: str, count: int) -> _Labelled:
    """Digit -> `count` (path, group) pairs of a single-medium data set."""
    found: _Labelled = {digit: [] for digit in DIGITS}
    for line in (folder / f"{side}.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        path = next(part["path"] for part in record["messages"][0]["content"] if "path" in part)
        found[record["meta"]["label"]].append((path, record["group"]))
    return {digit: chooser("match-two", side, digit).sample(rows, count) for digit, rows in found.items()}


def match_two(folder: Path, assets: Mapping[str, Path]) -> None:
    """6,000 pairs to train, 600 to test, of other pictures, other voices and other speeds."""
    sides = []
    for side, count, rounds in (("train", 100, 3), ("test", 30, 1)):
        images, sounds = (_labelled(assets[name], side, count) for name in ("digits-image", "spoken-digits"))
        items = []
        for number, (image, seen, sound, heard, is_match) in enumerate(
            balanced_pairs(images, sounds, rounds, f"match-two {side}")
        ):
            for name, (path, _) in (("digits-image", image), ("spoken-digits", sound)):
                if not (folder / path).exists():
                    copied(assets[name] / path, folder / path)
            id_ = f"{side}-{number:04d}"
            media = (("image", image[0]), ("speech", sound[0]))
            meta = {"image": seen, "speech": heard}
            # Grouped by voice; pictures come from sides that share no writer's block.
            items.append(Item(id_, sound[1], "yes" if is_match else "no", media, meta=meta))
        chooser("match-two", side).shuffle(items)
        sides.append(items)
    write_sets(folder, "match-two", _PROMPTS, *sides)
