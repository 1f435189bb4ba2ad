"""Writing a data set as an ordinary folder: media files and JSON lines, the format users bring their own data in.

One line is one conversation:

    {"id": "seven-f3-170", "group": "en-us+f3",
     "messages": [{"role": "user", "content": [{"type": "text", "text": "Which word is spoken?"},
                                               {"type": "speech", "path": "media/seven-f3-170.wav"}]},
                  {"role": "assistant", "content": [{"type": "text", "text": "seven"}]}],
     "meta": {"task": "spoken-digits", "label": "seven"}}

`type` is `text` or the name of a modality; `path` is relative to the folder. A group (a speaker, a subject, a source
file) is never on both sides of a split. Everything that is chosen is drawn from a generator keyed by set and
record, so that the same set is the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import random
import wave
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from omniloom.errors import DataError

__all__ = ["Item", "Prompts", "chooser", "write_array", "write_image", "write_sets", "write_wav"]

SPEECH_RATE_HZ = 16_000


@dataclass(frozen=True)
class Prompts:
    """Ways to ask for the same thing: those of training, and at least three that no training record uses."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.held_out) < 3 or set(self.train) & set(self.held_out):
            raise DataError(f"expected 3 or more held-out prompts that training does not use, got {self.held_out}.")


@dataclass(frozen=True)
class Item:
    """One example before it is asked for.

    `media` goes to the user's turn as (modality, path) pairs, `drawn` to the assistant's. `word` fills `{word}`
    in the prompts. `question`, if given, is asked as it is and has no paraphrases.
    """

    id: str
    group: str
    label: str
    media: tuple[tuple[str, str], ...] = ()
    drawn: tuple[tuple[str, str], ...] = ()
    word: str = ""
    question: Prompts | None = None
    meta: dict[str, str] = field(default_factory=dict)


def chooser(*key: object) -> random.Random:
    """A generator of random choices that depends on `key` alone: not on the order of calls, nor on the process."""
    return random.Random(int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big"))


def write_sets(folder: Path, task: str, prompts: Prompts | None, train: Sequence[Item], test: Sequence[Item]) -> None:
    """Write `train.jsonl`, `test.jsonl` and `test_paraphrase.jsonl` (the test items, asked as training never asks).

    Raises:
        DataError: a group is on both sides, an id occurs twice, or a media file is missing.
    """
    both = {item.group for item in train} & {item.group for item in test}
    if both:
        raise DataError(
            f"{task}: group {min(both)!r} is in training and test; scores would be those of known subjects."
        )
    for items in (train, test):
        ids = [item.id for item in items]
        if len(set(ids)) != len(ids):
            raise DataError(f"{task}: {len(ids) - len(set(ids))} ids occur more than once.")
    _write_lines(folder, "train", [_record(task, item, prompts, "train") for item in train])
    _write_lines(folder, "test", [_record(task, item, prompts, "test") for item in test])
    _write_lines(folder, "test_paraphrase", [_record(task, item, prompts, "held-out") for item in test])


def _record(task: str, item: Item, prompts: Prompts | None, kind: str) -> dict[str, object]:
    ways = item.question or prompts
    assert ways is not None
    choose = chooser(task, item.id, kind)
    text = choose.choice(ways.held_out if kind == "held-out" else ways.train).format(word=item.word)
    parts = [{"type": "text", "text": text}, *({"type": name, "path": path} for name, path in item.media)]
    choose.shuffle(parts)
    answer = [{"type": name, "path": path} for name, path in item.drawn] or [{"type": "text", "text": item.label}]
    meta = {"task": task, "label": item.label, **item.meta}
    if kind == "held-out":
        meta["paraphrase"] = "held-out"
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]
    return {"id": item.id, "group": item.group, "messages": messages, "meta": meta}


def _write_lines(folder: Path, split: str, records: Iterable[dict[str, object]]) -> None:
    lines = []
    for record in records:
        for message in record["messages"]:  # type: ignore[attr-defined]
            for part in message["content"]:
                if "path" in part and not (folder / part["path"]).is_file():
                    raise DataError(f"record {record['id']!r} names {part['path']!r}, which is not in {folder}.")
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")


def write_image(path: Path, pixels: np.ndarray, *, size_px: int | None = None) -> None:
    """Write (Y, X) or (Y, X, 3) uint8 pixels as PNG, enlarged smoothly to `size_px` square if given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if size_px is not None:
        image = image.resize((size_px, size_px), Image.Resampling.BICUBIC)
    image.save(path, format="PNG", optimize=False)


def write_wav(path: Path, samples: np.ndarray, rate_hz: int = SPEECH_RATE_HZ) -> None:
    """Write (S,) float samples in -1..1 as 16-bit mono WAV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate_hz, 0, "NONE", "not compressed"))
        file.writeframes(data)


def write_array(path: Path, values: np.ndarray) -> None:
    """Write an array as `.npy` in float32: a series (T, C), or points (N, 3 + C)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.ascontiguousarray(values, dtype=np.float32), allow_pickle=False)
