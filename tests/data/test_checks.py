"""Checks of data: every problem with its file and line, before any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omniloom.config import ModalityConfig, load_run
from omniloom.data import FolderSource, JsonlSource, SourceReport, check_data, check_source, check_splits

from .files import png, record, uri, wav, write_jsonl


def _modality(name: str, payload: str, **ways: Any) -> ModalityConfig:
    return ModalityConfig.model_validate({"payload": payload, "markers": ["", ""], **ways})


_IN = {"processor": "image", "encoder": "patch_vit"}
MODALITIES = {
    "image": _modality("image", "image", **{"in": _IN}),
    "sound": _modality("sound", "audio", **{"in": _IN}),
    "digit": _modality("digit", "image", out={"codec": "image_fsq"}),
    "voice": _modality("voice", "audio", out={"generator": "voice"}),
}


def _messages(*pairs: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in pairs], **more}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "a.wav").write_bytes(wav())
    (tmp_path / "cut.png").write_bytes(png()[:40])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"hello")
    (tmp_path.parent / "outside.png").write_bytes(png())
    return tmp_path


def _check(folder: Path, records: list[Any], **options: Any) -> SourceReport:
    write_jsonl(folder / "a.jsonl", records)
    return check_source(JsonlSource(folder, path="a.jsonl"), MODALITIES, **options)


def test_good_records_have_no_problem_and_are_counted(folder: Path) -> None:
    digit = _messages(("user", "Draw."), ("assistant", [{"type": "digit", "path": "a.png"}]))
    heard = _messages(
        ("system", "Be brief."),
        ("user", [{"type": "sound", "path": "a.wav"}]),
        ("assistant", "a bell"),
        ("user", "Sure?"),
        ("assistant", "yes"),
    )
    report = _check(folder, [record(group="g1"), record(answer="a dog"), record(), digit, heard], is_deep=True)
    assert report.problems == []
    assert report.samples == 5 and report.modalities == {"image": 3, "digit": 1, "sound": 1}
    assert report.answers == {"a cat": 2, "a dog": 1, "yes": 1}
    assert list(report.groups) == ["g1"]


WRONG: list[tuple[Any, str]] = [
    ("{", "not JSON"),
    ({"messages": []}, "at least one message"),
    (record("none.png"), "there is no readable file 'none.png'"),
    (record("../outside.png"), "path_outside_root"),
    (record("."), "there is no readable file '.'"),
    (record("empty.png"), "empty_media"),
    (record("text.png"), "'text' by its content"),
    (record("a.wav"), "'wav' by its content; image takes png"),
    (_messages(("user", [{"type": "image", "data": uri(b"hello")}]), ("assistant", "a")), "unsupported_media_type"),
    (_messages(("user", [{"type": "imag", "path": "a.png"}]), ("assistant", "a")), "Did you mean 'image'?"),
    (_messages(("user", [{"type": "digit", "path": "a.png"}]), ("assistant", "a")), "has no `in` for"),
    (_messages(("user", "Draw."), ("assistant", [{"type": "image", "path": "a.png"}])), "has no `out` for"),
    (_messages(("user", "Say."), ("assistant", [{"type": "voice", "path": "a.wav"}])), "made from text"),
    (_messages(("user", "a")), "not the assistant's"),
    (_messages(("assistant", "a")), "the roles are assistant"),
    (_messages(("user", "a"), ("user", "b"), ("assistant", "c")), "the roles are user, user, assistant"),
    (_messages(("user", "a"), ("assistant", "  ")), "message 1 (assistant) is empty"),
    (_messages(("user", ""), ("assistant", "a")), "message 0 (user) is empty"),
    (record(id="first"), "occurs twice, first at"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG)
def test_a_wrong_record_is_a_problem_at_its_line(folder: Path, wrong: Any, message: str) -> None:
    report = _check(folder, [record(id="first"), wrong, record()])
    assert [problem.line for problem in report.problems] == [2], report.problems
    assert message in report.problems[0].message and report.problems[0].file == str(folder / "a.jsonl")


def test_all_problems_are_found_at_once(folder: Path) -> None:
    report = _check(folder, [wrong for wrong, _ in WRONG])
    assert {problem.line for problem in report.problems} == set(range(1, len(WRONG)))


def test_only_a_deep_check_finds_what_only_decoding_shows(folder: Path) -> None:
    assert _check(folder, [record("cut.png")]).problems == []
    (problem,) = _check(folder, [record("cut.png")], is_deep=True).problems
    assert "invalid_image" in problem.message


def test_a_folder_s_problem_is_told_with_the_file_itself(folder: Path) -> None:
    (folder / "pets" / "cat").mkdir(parents=True)
    (folder / "pets" / "cat" / "notes.txt").write_text("meow")
    report = check_source(FolderSource(folder, path="pets", modality="image", prompt="?"), MODALITIES)
    assert [(problem.file, problem.line) for problem in report.problems] == [(str(folder / "pets/cat/notes.txt"), None)]


def test_a_group_on_both_sides_is_a_problem(folder: Path) -> None:
    (folder / "b.png").write_bytes(png((0, 0, 0)))
    train = _check(folder, [record(group="anna"), record(group="ben")])
    test = _check(folder, [record("b.png", group="carl"), record("b.png", group="ben")])
    (problem,) = check_splits({"train": train}, {"test": test})
    assert "the group 'ben' of 'test' is also in 'train'" in problem.message and problem.line == 2


def test_a_medium_on_both_sides_is_a_problem(folder: Path) -> None:
    report = _check(folder, [record()])
    (problem,) = check_splits({"train": report}, {"test": _check(folder, [record(), record()])})
    assert "the medium" in problem.message and "a.png" in problem.message


def test_groups_of_sources_without_a_common_modality_are_not_compared(folder: Path) -> None:
    heard = _messages(("user", [{"type": "sound", "path": "a.wav"}]), ("assistant", "a bell"), group="1")
    assert check_splits({"train": _check(folder, [record(group="1")])}, {"test": _check(folder, [heard])}) == []


RUN = """\
name: pets
backbone: {id: org/lm}
modalities:
  image: {payload: image, in: {processor: image, encoder: patch_vit}}
data:
  train: {type: jsonl, path: train.jsonl}
  test: {type: jsonl, path: test.jsonl}
  gone: {type: jsonl, path: gone.jsonl}
stages:
  - {name: align, train: [image/projector], data: {train: 1}, steps: 3}
evaluation:
  pets: {data: test}
  same: {data: train}
"""


def test_a_run_s_data_are_checked_with_its_file(folder: Path) -> None:
    (folder / "b.png").write_bytes(png((0, 0, 0)))
    write_jsonl(folder / "train.jsonl", [record(group="g")])
    write_jsonl(folder / "test.jsonl", [record("b.png", group="g"), record("none.png")])
    (folder / "run.yaml").write_text(RUN)
    reports = check_data(load_run(folder / "run.yaml"))
    found = {
        name: [(Path(problem.file or "").name, problem.line) for problem in report.problems]
        for name, report in reports.items()
    }
    assert found == {
        "train": [("train.jsonl", None)],  # evaluated on what it is trained on
        "test": [("test.jsonl", 2), ("test.jsonl", 1)],
        "gone": [("run.yaml", 8)],
    }
