"""Evaluation and report of a folder."""

import shutil

import pytest

from omniloom.eval import read_results


@pytest.fixture
def folder(run, tmp_path):
    """A run folder of this test's own."""
    # As deep as the original: paths of data and language model in it are relative.
    place = run.parent / f"{run.name}-{tmp_path.name}"
    shutil.copytree(run, place)
    yield place
    shutil.rmtree(place)


def test_one_task_is_evaluated_and_its_table_printed(call, folder):
    done = call("eval", folder, "--task", "drawn")
    assert done.exit_code == 0, done.output
    assert "evaluate drawn" in done.stdout and "evaluate things" not in done.stdout
    assert "done in" in done.stdout


def test_a_task_measured_anew_leaves_the_others_as_they_were_measured(call, folder):
    before = read_results(folder / "eval" / "results.json")
    assert call("eval", folder, "--task", "drawn").exit_code == 0
    after = read_results(folder / "eval" / "results.json")
    assert set(after.tasks) == set(before.tasks) and after.tasks["things"] == before.tasks["things"]


def test_an_unknown_task_is_refused(call, folder):
    done = call("eval", folder, "--task", "nothing")
    assert done.exit_code == 2 and "things" in done.stderr


def test_a_report_is_written_again(call, folder):
    (folder / "report.html").unlink()
    done = call("report", folder)
    assert done.exit_code == 0, done.output
    assert (folder / "report.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("command", ["eval", "report", "chat"])
def test_a_folder_that_is_not_there_or_no_run_is_told(call, tmp_path, command):
    done = call(command, tmp_path / "nothing")
    assert done.exit_code == 2 and "no run folder" in done.stderr
    (tmp_path / "empty").mkdir()
    done = call(command, tmp_path / "empty")
    assert done.exit_code == 2 and "no manifest.json" in done.stderr


def test_an_altered_run_is_refused(call, folder):
    weights = next((folder / "components").rglob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    done = call("eval", folder)
    assert done.exit_code == 2 and "sha256" in done.stderr
