"""The digits that scikit-learn brings make a set without any package fetched."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omniloom import starter
from omniloom.starter.baseline import measure
from omniloom.starter.images import DIGITS, digits_draw, digits_image


def _records(folder: Path, split: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]


def test_digits_are_split_by_blocks_of_writers(tmp_path: Path) -> None:
    digits_image(tmp_path, {})
    train, test = _records(tmp_path, "train"), _records(tmp_path, "test")
    assert (len(train), len(test)) == (1350, 447)
    assert not {r["group"] for r in train} & {r["group"] for r in test}
    assert {r["meta"]["label"] for r in test} == set(DIGITS)
    path = next(part["path"] for part in test[0]["messages"][0]["content"] if "path" in part)
    assert Image.open(tmp_path / path).size == (32, 32)


def test_a_digit_to_draw_is_the_answer_and_its_name_the_question(tmp_path: Path) -> None:
    digits_draw(tmp_path, {})
    record = _records(tmp_path, "test")[0]
    user, assistant = record["messages"]
    assert [part["type"] for part in user["content"]] == ["text"]
    assert record["meta"]["label"] in user["content"][0]["text"]
    image = Image.open(tmp_path / assistant["content"][0]["path"])
    assert assistant["content"][0]["type"] == "digit"
    assert (image.size, image.mode) == ((8, 8), "RGB")
    assert np.ptp(np.asarray(image), axis=2).max() == 0


def test_a_data_set_is_built_once_and_its_digest_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNILOOM_HOME", str(tmp_path))
    folder = starter.dataset("digits-draw")
    assert folder == tmp_path / "data" / "digits-draw-1"
    written = (folder / "train.jsonl").stat().st_mtime_ns
    assert starter.dataset("digits-draw") == folder
    assert (folder / "train.jsonl").stat().st_mtime_ns == written
    assert len(starter.digest("digits-draw")) == 64
    assert next(entry for entry in starter.inventory() if entry.name == "digits-draw").is_cached


def test_a_linear_classifier_reads_the_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNILOOM_HOME", str(tmp_path))
    result = measure("digits-draw")
    assert (result.classes, result.train, result.test) == (10, 1350, 447)
    assert result.majority < 0.12
    assert 0.88 < result.accuracy < 0.95  # measured 0.915
