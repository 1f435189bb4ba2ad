"""The options of a run's parts, held against the parts' own signatures."""

from __future__ import annotations

from pathlib import Path

import pytest

from omniloom.config import check_parts, load_run

from .test_modality_file import TOUCH

RUN = """\
name: touch
backbone: {id: org/lm}
modalities:
  touch:
    payload: series
    in:
      processor: touch.py:TouchProcessor
      encoder:
        type: touch.py:TouchEncoder
        width: 32
      projector:
        type: mlp
data:
  pets:
    type: folder
    path: pets/
    modality: touch
    prompt: What animal?
"""


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    (tmp_path / "touch.py").write_text(TOUCH)
    (tmp_path / "run.yaml").write_text(RUN)
    return tmp_path / "run.yaml"


def test_a_run_of_known_parts_and_options_has_no_problem(run_file: Path) -> None:
    assert check_parts(load_run(run_file)) == []


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        (
            "width: 32",
            "width: 32\n        dept: 3",
            11,
            "encoder 'touch.py:TouchEncoder' has no option 'dept'. Did you mean 'depth'?",
        ),
        ("        width: 32\n", "", 8, "needs the option 'width'"),
        ("touch.py:TouchProcessor", "touch.py:TouchProcesor", 7, "Did you mean 'TouchProcessor'?"),
        ("touch.py:TouchProcessor", "tuch.py:TouchProcessor", 7, "cannot find the part file"),
        ("touch.py:TouchProcessor", "touch.py:MODALITY", 7, "is no class but dict"),
        ("payload: series", "payload: image", 5, "holds payloads of kind 'image', but its processor"),
        ("    path: pets/\n", "    pathh: pets/\n", 16, "Did you mean 'path'?"),
        ("id: org/lm", "id: org/lm, revison: main", 2, "Did you mean 'revision'?"),
    ],
)
def test_a_wrong_part_or_option_is_told_with_its_line(
    run_file: Path, old: str, new: str, line: int, message: str
) -> None:
    run_file.write_text(RUN.replace(old, new))
    found = check_parts(load_run(run_file))
    assert any(
        problem.line == line and message in problem.message and problem.file == str(run_file) for problem in found
    ), found


def test_all_parts_are_checked_not_only_the_first(run_file: Path) -> None:
    run_file.write_text(RUN.replace("width: 32", "wdth: 32").replace("prompt:", "promt:"))
    assert [problem.line for problem in check_parts(load_run(run_file))] == [10, 8, 18, 14]


def test_parts_inside_parts_are_checked_too(run_file: Path) -> None:
    inner = '[{"type": "log_mel_conv", "widht": 8}, "whisperer"]'
    run = load_run(run_file, sets=[f'modalities.touch.in.encoder={{"type": "together", "encoders": {inner}}}'])
    messages = [problem.message for problem in check_parts(run)]
    assert any("'log_mel_conv' has no option 'widht'" in message for message in messages)
    assert any("unknown encoder 'whisperer'" in message for message in messages)
