"""Malformed run files: each is one clear ConfigError at the right line, and none can fill memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from omniloom.config import load_run, problems
from omniloom.errors import ConfigError

from .run_files import MALFORMED, RUN


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_run_file_is_one_error_with_file_and_line(name: str, tmp_path: Path) -> None:
    content, line, message = MALFORMED[name]
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_run(path)
    error = caught.value
    assert (error.file, error.line) == (str(path), line), str(error)
    assert message in str(error)
    assert len(str(error)) < 1000
    assert len(problems(path)) >= 1


_CHILD = """
import json, resource, sys
from omniloom.config import load_run
from omniloom.errors import ConfigError
load_run(sys.argv[1] + "/good/run.yaml")
result = {}
for path in sys.argv[2:]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        load_run(path)
        outcome = "loaded"
    except ConfigError:
        outcome = "ConfigError"
    result[path] = outcome, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
result["modules"] = [name for name in ("torch", "transformers", "numpy") if name in sys.modules]
print(json.dumps(result))
"""


def test_no_malformed_run_file_makes_a_process_grow(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "run.yaml").write_text(RUN)
    paths = []
    for index, (content, _, _) in enumerate(MALFORMED.values()):
        folder = tmp_path / str(index)
        folder.mkdir()
        (folder / "run.yaml").write_bytes(content)
        paths.append(str(folder / "run.yaml"))
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(tmp_path), *paths], capture_output=True, text=True, timeout=100, check=True
    )
    result = json.loads(done.stdout)
    assert result.pop("modules") == []
    for name, (outcome, grown_kb) in zip(MALFORMED, result.values(), strict=True):
        assert outcome == "ConfigError", name
        assert grown_kb < 16_000, (name, grown_kb)


def test_all_problems_are_listed_in_the_order_of_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    text = RUN.replace("dtype: bfloat16", "dtype: float8").replace("over: refuse", "over: refus")
    text = (
        text.replace("lr: 1e-3", "lr: -1")
        .replace("data: {things: 1}", "data: {thing: 1}")
        .replace("{data: held_out", "{data: helt_out")
    )
    path.write_text(text)
    found = problems(path)
    assert [problem.line for problem in found] == [5, 18, 36, 40, 44]
    assert str(found[3]).startswith(f"{path}:40: stage 'tune' trains on 'thing'")
    with pytest.raises(ConfigError, match="and 4 more"):
        load_run(path)


def test_a_problem_of_one_stage_does_not_shift_the_lines_of_the_next(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(RUN.replace("    steps: 200\n", "").replace("data: {things: 1}", "data: {thing: 1}"))
    assert [problem.line for problem in problems(path)] == [32, 39]


def test_a_good_run_file_has_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(RUN)
    assert problems(path) == []


@pytest.mark.parametrize("name", ["quickstrat", "none.yaml", "a/b/c.yaml", "nul\0.yaml", "x" * 5000])
def test_a_run_that_is_not_there_is_a_config_error(name: str) -> None:
    with pytest.raises(ConfigError):
        load_run(name)
