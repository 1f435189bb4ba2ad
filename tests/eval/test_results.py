import json
from pathlib import Path

import pytest

from omniloom.errors import DataError
from omniloom.eval import Results, read_results, run_task, write_results

from .test_tasks import guesser, samples_of


@pytest.fixture(scope="module")
def results() -> Results:
    probes = ["blind", "shuffled", "permuted", "alone"]
    tasks = {name: run_task(name, samples_of(24, "image", "audio"), guesser(1), probes=probes) for name in ("b", "a")}
    return Results("run", "ab" * 32, tasks)


def test_what_is_written_reads_back_equal_in_the_same_order(results: Results, tmp_path: Path) -> None:
    write_results(tmp_path / "eval" / "results.json", results)
    read = read_results(tmp_path / "eval" / "results.json")
    assert read == results and list(read.tasks) == ["b", "a"]


def test_equal_results_are_equal_bytes_and_leave_no_other_file(results: Results, tmp_path: Path) -> None:
    write_results(tmp_path / "a.json", results)
    write_results(tmp_path / "b.json", read_results(tmp_path / "a.json"))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json"]


def test_the_file_has_the_documented_fields(results: Results, tmp_path: Path) -> None:
    write_results(tmp_path / "r.json", results)
    document = json.loads((tmp_path / "r.json").read_text())
    assert set(document) == {"version", "run", "run_digest", "created_by", "tasks"}
    wanted = "modalities n score interval95 chance blind shuffled alone unparsable confusion items"
    assert set(wanted.split()) <= set(document["tasks"]["a"])
    assert document["created_by"].startswith("omniloom ")


def damaged(document: dict, place: str) -> dict:
    task = document["tasks"]["a"]
    if place == "version":
        document["version"] = 2
    elif place == "extra":
        task["bleu"] = 0.5
    elif place == "missing":
        del task["chance"]["uniform"]
    elif place == "type":
        task["n"] = "24"
    elif place == "correct":
        task["correct"] += 1
    elif place == "item":
        task["items"].pop()
    elif place == "renamed":
        task["task"] = "c"
    return document


@pytest.mark.parametrize("place", ["version", "extra", "missing", "type", "correct", "item", "renamed"])
def test_a_file_that_was_altered_is_refused_by_name(results: Results, tmp_path: Path, place: str) -> None:
    path = tmp_path / "r.json"
    write_results(path, results)
    path.write_text(json.dumps(damaged(json.loads(path.read_text()), place)))
    with pytest.raises(DataError, match=r"r\.json"):
        read_results(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_what_is_no_results_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(DataError, match=r"r\.json"):
        read_results(tmp_path / "r.json")


def test_a_missing_file_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="omniloom eval"):
        read_results(tmp_path / "r.json")
