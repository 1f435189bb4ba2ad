"""What `new` writes works as it is."""

import pytest

from omniloom.cli.scaffolding import PayloadKind
from omniloom.config import check_parts, load_run
from omniloom.testing import check_modality


@pytest.mark.parametrize("payload", list(PayloadKind))
def test_a_new_modality_keeps_every_law_in_sixty_lines(call, tmp_path, payload):
    file = tmp_path / "my_sensor.py"
    done = call("new", "modality", "my_sensor", "--payload", payload.value, "--out", file)
    assert done.exit_code == 0, done.output
    text = file.read_text()
    assert len(text.splitlines()) <= 60 and max(map(len, text.splitlines())) <= 120
    assert "$" not in text and "MySensorEncoder" in text
    assert check_modality(file).is_kept


def test_a_new_modality_is_used_by_a_run_file_with_one_line(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("new", "modality", "touch").exit_code == 0
    (tmp_path / "run.yaml").write_text("name: x\nbackbone: {id: x}\nmodalities:\n  touch: {use: ./touch.py}\n")
    loaded = load_run("run.yaml")
    assert not check_parts(loaded)
    assert loaded.config.modalities["touch"].in_ is not None


@pytest.mark.parametrize("name", ["Touch", "2d", "text", "a b", "../x", "a" * 33, "é"])
def test_a_bad_name_is_refused(call, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    done = call("new", "modality", name)
    assert done.exit_code == 2 and "cannot be named" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["modality", "run"])
def test_a_file_that_is_there_is_never_overwritten(call, tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    ending = {"modality": "py", "run": "yaml"}[what]
    (tmp_path / f"mine.{ending}").write_text("precious")
    done = call("new", what, "mine")
    assert done.exit_code == 2 and "is there already" in done.stderr
    assert (tmp_path / f"mine.{ending}").read_text() == "precious"


def test_a_new_run_is_a_whole_run_file_that_only_lacks_the_data(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call("new", "run", "mine")
    assert done.exit_code == 0, done.output
    loaded = load_run("mine.yaml")
    assert loaded.config.name == "mine" and loaded.config.stages and loaded.config.evaluation
    assert not check_parts(loaded)
    assert "#" in (tmp_path / "mine.yaml").read_text()


def test_a_run_may_be_named_like_a_number(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("new", "run", "1e5").exit_code == 0
    assert load_run("1e5.yaml").config.name == "1e5"
