"""A data set's folder: disjoint groups, held-out prompts, the same bytes every time."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omniloom.errors import DataError
from omniloom.starter.cache import folder_sha256s
from omniloom.starter.records import Item, Prompts, chooser, write_array, write_image, write_sets, write_wav

_PROMPTS = Prompts(("What {word}?", "Which {word}?"), ("A?", "B?", "C?"))


def _items(side: str, count: int, folder: Path) -> list[Item]:
    items = []
    for i in range(count):
        write_array(folder / f"media/{side}-{i}.npy", np.full((3, 2), i))
        items.append(
            Item(f"{side}-{i}", f"{side}-group-{i % 2}", "seven", (("imu", f"media/{side}-{i}.npy"),), word="one")
        )
    return items


def _written(folder: Path) -> dict[str, list[dict]]:
    folder.mkdir()
    write_sets(folder, "toy", _PROMPTS, _items("train", 12, folder), _items("test", 6, folder))
    return {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in folder.glob("*.jsonl")}


def test_the_same_set_is_the_same_bytes(tmp_path: Path) -> None:
    _written(tmp_path / "a")
    _written(tmp_path / "b")
    assert folder_sha256s(tmp_path / "a") == folder_sha256s(tmp_path / "b")


def test_a_record_is_a_conversation_with_media_by_relative_path(tmp_path: Path) -> None:
    record = _written(tmp_path / "a")["train"][0]
    user, assistant = record["messages"]
    assert (user["role"], assistant["role"]) == ("user", "assistant")
    assert sorted(part["type"] for part in user["content"]) == ["imu", "text"]
    assert assistant["content"] == [{"type": "text", "text": "seven"}]
    assert record["meta"] == {"task": "toy", "label": "seven"}
    assert {"What one?", "Which one?"} >= {part["text"] for part in user["content"] if "text" in part}


def test_text_and_media_come_in_both_orders(tmp_path: Path) -> None:
    records = _written(tmp_path / "a")["train"]
    assert {record["messages"][0]["content"][0]["type"] for record in records} == {"imu", "text"}


def test_paraphrases_are_asked_of_the_same_items_and_never_in_training(tmp_path: Path) -> None:
    sets = _written(tmp_path / "a")

    def texts(split: str) -> set[str]:
        return {part["text"] for record in sets[split] for part in record["messages"][0]["content"] if "text" in part}

    assert [r["id"] for r in sets["test"]] == [r["id"] for r in sets["test_paraphrase"]]
    assert not texts("test_paraphrase") & texts("train")
    assert all(record["meta"]["paraphrase"] == "held-out" for record in sets["test_paraphrase"])


def test_a_group_on_both_sides_is_refused(tmp_path: Path) -> None:
    items = _items("train", 2, tmp_path)
    other = [Item("other", "train-group-1", "seven", items[0].media)]
    with pytest.raises(DataError, match="train-group-1"):
        write_sets(tmp_path, "toy", _PROMPTS, items, other)


def test_an_id_used_twice_is_refused(tmp_path: Path) -> None:
    items = _items("train", 2, tmp_path)
    with pytest.raises(DataError, match="more than once"):
        write_sets(tmp_path, "toy", _PROMPTS, [items[0], items[0]], [])


def test_a_record_without_its_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"media/none\.png"):
        write_sets(tmp_path, "toy", _PROMPTS, [Item("a", "a", "x", (("image", "media/none.png"),))], [])


def test_prompts_need_three_held_out_ones() -> None:
    with pytest.raises(DataError, match="3 or more"):
        Prompts(("a",), ("b", "c"))
    with pytest.raises(DataError, match="training does not use"):
        Prompts(("a",), ("a", "b", "c"))


def test_choices_depend_on_the_key_alone() -> None:
    assert chooser("a", 1).random() == chooser("a", 1).random() != chooser("a", 2).random()


def test_media_are_read_back_as_written(tmp_path: Path) -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    write_image(tmp_path / "a.png", pixels)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), pixels)
    write_wav(tmp_path / "a.wav", np.array([0.0, 0.5, -1.0, 2.0]))
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        assert np.frombuffer(file.readframes(4), "<i2").tolist() == [0, 16384, -32767, 32767]
    write_array(tmp_path / "a.npy", np.ones((2, 3)))
    assert np.load(tmp_path / "a.npy").dtype == np.float32
