"""Data sets of pictures: digits, clothes, questions about shapes, and digits to be drawn."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from omniloom.starter.cache import copied
from omniloom.starter.records import Item, Prompts, chooser, write_image, write_sets

__all__ = ["DIGITS", "THINGS", "digits_draw", "digits_image", "easy_vqa", "things_image"]

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
THINGS = ("t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")

_DIGIT_PROMPTS = Prompts(
    (
        "Which digit is in the picture?", "What digit does the image show?", "Read the handwritten digit.",
        "Name the digit you see.", "Which number is written here?", "What number is this?",
    ),
    (
        "Tell me the numeral in this image.", "Somebody wrote a digit; which one is it?",
        "Look at the picture and say the number.", "Can you make out the figure shown?",
    ),
)  # fmt: skip
_THING_PROMPTS = Prompts(
    (
        "What is in the picture?", "What thing does the image show?", "Name the item in the picture.",
        "Which piece of clothing is this?", "What do you see?", "What is this?",
    ),
    (
        "Tell me what the photo shows.", "Which article would a shop sell this as?",
        "Identify the object in the image.", "In one word, what is pictured here?",
    ),
)  # fmt: skip
_DRAW_PROMPTS = Prompts(
    (
        "Draw the digit {word}.", "Write the number {word}.", "Show me a {word}.",
        "Make a picture of the digit {word}.", "Please draw a {word}.", "I want to see the number {word}.",
    ),
    ("Sketch the numeral {word}.", "Put a handwritten {word} on paper.", "Could you produce an image of {word}?"),
)  # fmt: skip

_BLOCK = 90  # consecutive pictures held together: scikit-learn's digits come writer by writer, but do not name them
_TRAIN_BLOCKS = 15


def _digits() -> list[tuple[str, str, int, np.ndarray]]:
    """(id, group, digit, (8, 8) uint8) of scikit-learn's 1,797 handwritten digits, in their order."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = np.round(data.images * (255 / 16)).astype(np.uint8)
    rows = zip(data.target.tolist(), pixels, strict=True)
    return [(f"digit-{i:04d}", f"block-{i // _BLOCK:02d}", digit, image) for i, (digit, image) in enumerate(rows)]


def _by_block(items: list[Item]) -> tuple[list[Item], list[Item]]:
    train = [item for item in items if int(item.group.removeprefix("block-")) < _TRAIN_BLOCKS]
    return train, items[len(train) :]


def digits_image(folder: Path, assets: Mapping[str, Path]) -> None:
    """Handwritten digits, 32 x 32: 1,350 to train, 447 later ones, of other writers, to test."""
    items = []
    for id_, group, digit, pixels in _digits():
        path = f"media/{id_}.png"
        write_image(folder / path, pixels, size_px=32)
        items.append(Item(id_, group, DIGITS[digit], (("image", path),)))
    write_sets(folder, "digits-image", _DIGIT_PROMPTS, *_by_block(items))


def digits_draw(folder: Path, assets: Mapping[str, Path]) -> None:
    """Digits to be drawn by name: 8 x 8 RGB pictures on the assistant's side, in the modality `digit`."""
    items = []
    for id_, group, digit, pixels in _digits():
        path = f"media/{id_}.png"
        write_image(folder / path, np.repeat(pixels[:, :, None], 3, axis=2))
        items.append(Item(id_, group, DIGITS[digit], drawn=(("digit", path),), word=DIGITS[digit]))
    write_sets(folder, "digits-draw", _DRAW_PROMPTS, *_by_block(items))


def _idx(path: Path) -> np.ndarray:
    """The array of a gzipped IDX file of unsigned bytes."""
    data = gzip.decompress(path.read_bytes())
    axes = data[3]
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes)]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def things_image(folder: Path, assets: Mapping[str, Path], *, train: int = 3000, test: int = 600) -> None:
    """Fashion-MNIST, 28 x 28: ten kinds of clothes, equally many of each, from the official two sides."""
    source = assets["fashion-mnist"]
    sides = []
    for side, prefix, count in (("train", "train", train), ("test", "t10k", test)):
        pixels, labels = (
            _idx(source / f"{prefix}-images-idx3-ubyte.gz"),
            _idx(source / f"{prefix}-labels-idx1-ubyte.gz"),
        )
        items = []
        for label, thing in enumerate(THINGS):
            rows = chooser("things-image", side, thing).sample(
                np.flatnonzero(labels == label).tolist(), count // len(THINGS)
            )
            for row in rows:
                id_ = f"{side}-{row:05d}"
                write_image(folder / f"media/{id_}.png", pixels[row])
                items.append(Item(id_, id_, thing, (("image", f"media/{id_}.png"),)))
        chooser("things-image", side).shuffle(items)
        sides.append(items)
    write_sets(folder, "things-image", _THING_PROMPTS, *sides)


def easy_vqa(folder: Path, assets: Mapping[str, Path], *, train: int = 8000, test: int = 1000) -> None:
    """Questions about one coloured shape, 64 x 64: what shape, what colour, and as many yes as no."""
    source = assets["easy-vqa"]
    sides = []
    for side, count in (("train", train), ("test", test)):
        questions = json.loads((source / side / "questions.json").read_text(encoding="utf-8"))
        choose = chooser("easy-vqa", side)
        choose.shuffle(questions)
        wanted = {"yes": count // 3, "no": count // 3, "": count - 2 * (count // 3)}
        items = []
        for number, (question, answer, image) in enumerate(questions):
            kind = answer if answer in wanted else ""
            if wanted[kind] == 0:
                continue
            wanted[kind] -= 1
            path = f"media/{side}-{image}.png"
            if not (folder / path).exists():
                copied(source / side / "images" / f"{image}.png", folder / path)
            ways = _question_ways(question)
            meta = {"question": question}
            items.append(
                Item(f"{side}-{number:05d}", f"{side}-{image}", answer, (("image", path),), question=ways, meta=meta)
            )
        sides.append(items)
    write_sets(folder, "easy-vqa", None, *sides)


def _question_ways(question: str) -> Prompts:
    """A question as it is for training, and in frames around it that training does not use."""
    asked = question[0].upper() + question[1:]
    return Prompts(
        (asked, question, f"Question: {asked}"),
        (f"Look at the picture. {asked}", f"Please answer: {question}", f"{asked} Answer in one word."),
    )
