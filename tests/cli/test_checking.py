"""Every problem of a run file and its data, before training."""

import json
import shutil

import pytest
import yaml


@pytest.fixture
def own(tiny, tmp_path):
    """A copy of the tiny run: (values, write)."""
    shutil.copytree(tiny.parent / "data", tmp_path / "data")
    values = yaml.safe_load(tiny.read_text())
    values["backbone"]["id"] = str(tiny.parent / "language-model")

    def write():
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return path

    return values, write


def line_of(path, text):
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line)


def test_a_right_run_has_no_problems_and_a_summary_of_its_data(call, tiny):
    done = call("check", tiny)
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith("no problems found\n")
    row = next(line for line in done.stdout.splitlines() if line.startswith("things"))
    assert "24" in row and "image 6, sound 6" in row and "9 different" in row
    # Labels of 24 answers: "red" 3 and so on, byte by byte, with the token that ends the turn.
    assert "111" in row and "56 (" in row


def test_every_problem_is_told_with_its_line(call, own):
    values, write = own
    values["modalities"]["image"]["in"]["encoder"]["patch_size"] = 8
    values["modalities"]["sound"]["payload"] = "image"
    path = write()
    done = call("check", path)
    assert done.exit_code == 1
    assert f"{path}:{line_of(path, 'patch_size')}: encoder 'patch_vit' has no option 'patch_size'" in done.stdout
    assert "holds payloads of kind 'image'" in done.stdout
    assert " problems found" in done.stdout


def test_media_that_nothing_would_read_are_a_problem_and_are_not_trained(call, own, tmp_path):
    values, write = own
    values["modalities"]["image"]["in"]["insert"] = "inject"
    path = write()
    done = call("check", path)
    assert done.exit_code == 1
    assert f"{path}:{line_of(path, 'image:')}: 'image' has `insert: inject`" in done.stdout
    done = call("train", path, "--out", tmp_path / "out")
    assert done.exit_code == 2 and "no adapter reads it" in done.output


def test_problems_of_the_file_itself_come_alone(call, own):
    values, write = own
    values["stages"][1]["data"] = {"thing": 1.0}
    values["stages"][2]["lr"] = -1
    done = call("check", write())
    assert done.exit_code == 1
    assert "Did you mean 'things'?" in done.stdout and "2 problems found" in done.stdout


def test_data_problems_are_told_with_file_and_line(call, own, tmp_path):
    _, write = own
    (tmp_path / "data" / "train-3.wav").write_bytes(b"no sound")
    (tmp_path / "data" / "train-4.png").unlink()
    train = tmp_path / "data" / "train.jsonl"
    train.write_text(train.read_text() + '{"id": "x"}\n')
    done = call("check", write())
    assert done.exit_code == 1
    assert f"{train}:{line_of(train, 'train-3.wav')}: item 'sound'" in done.stdout
    assert f"{train}:{line_of(train, 'train-4.png')}: item 'image'" in done.stdout
    assert f"{train}:25: the record needs the key 'messages'" in done.stdout


def test_only_a_deep_check_decodes_media(call, own, tmp_path):
    _, write = own
    path = write()
    picture = tmp_path / "data" / "train-3.png"
    picture.write_bytes(picture.read_bytes()[:60])
    assert call("check", path, "--deep").exit_code == 1


def test_counts_selectors_and_rates_are_held_to_the_model(call, own):
    values, write = own
    values["stages"][0]["parameters"] = 5
    values["stages"][2]["lr"] = {"vocab*": 0.1}
    path = write()
    done = call("check", path)
    assert done.exit_code == 1
    assert (
        f"{path}:{line_of(path, 'parameters: 5')}: stage 'codec' trains 31,267 parameters, 5 are recorded"
        in done.stdout
    )
    lr = next(line for line in done.stdout.splitlines() if "vocab" in line or "lr" in line)
    assert lr.startswith(f"{path}:")


def test_a_language_model_that_is_not_there_is_a_problem_at_its_line(call, own):
    values, write = own
    values["backbone"]["id"] = "./no-such-model"
    path = write()
    done = call("check", path)
    assert done.exit_code == 1
    assert f"{path}:{line_of(path, 'no-such-model')}: " in done.stdout


def test_a_sample_longer_than_the_context_is_told(call, own):
    values, write = own
    values["context"] = {"max": 40}
    done = call("check", write())
    assert done.exit_code == 1
    assert "the limit is 40" in done.stdout


def test_many_problems_of_one_source_are_counted(call, own, tmp_path):
    _, write = own
    lines = [json.dumps({"id": str(index), "messages": []}) for index in range(50)]
    (tmp_path / "data" / "train.jsonl").write_text("\n".join(lines))
    done = call("check", write())
    assert "30 more problems" in done.stdout
    assert "more problems" not in call("check", write(), "--deep").stdout
