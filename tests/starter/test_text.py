"""The text-only set: certain answers, test facts that training never states."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omniloom.starter.text import _facts, instruct_text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text")
    instruct_text(path, {})
    return path


def _records(folder: Path, split: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]


def test_there_is_enough_to_train_and_to_test(folder: Path) -> None:
    train, test = _records(folder, "train"), _records(folder, "test")
    assert len(train) > 800 and len(test) > 80
    assert all(part["type"] == "text" for record in train + test for m in record["messages"] for part in m["content"])


def test_a_fact_of_the_test_is_asked_in_no_training_record(folder: Path) -> None:
    train, test = _records(folder, "train"), _records(folder, "test")
    assert not {record["group"] for record in train} & {record["group"] for record in test}
    asked = {record["messages"][0]["content"][0]["text"] for record in train}
    assert not asked & {record["messages"][0]["content"][0]["text"] for record in test}


def test_no_question_has_two_answers() -> None:
    answers: dict[str, str] = {}
    for _, answer, ways in _facts():
        for question in (*ways.train, *ways.held_out):
            assert answers.setdefault(question, answer) == answer


def test_sums_are_right() -> None:
    facts = {ways.train[0]: answer for _, answer, ways in _facts()}
    assert facts["What is seven plus eight?"] == "fifteen"
    assert facts["Which is larger, ten or nine?"] == "ten"
    assert facts["Which day comes after Sunday?"] == "Monday"
    assert facts["What is the opposite of cold?"] == "hot"
    assert "What is the opposite of right?" not in facts
