"""Questions with items, and conversations over a pipe."""

import json

import numpy as np
import pytest

from omniloom.api import Answer, load
from omniloom.cli.answers import Desk
from omniloom.cli.conversing import split_paths
from omniloom.errors import ConfigError
from omniloom.media import Image
from omniloom.media import load as load_medium
from omniloom.sequence import Item, Text


@pytest.fixture(scope="module")
def omni(run):
    return load(run)


def ask(call, run, *args, stdin=None):
    done = call("chat", run, "--max-new", "4", "--json", *args, stdin=stdin)
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_items_of_several_modalities_keep_the_order_of_the_command_line(call, run, media):
    image, sound = ["--image", media / "test-0.png"], ["--audio", media / "test-0.wav"]
    first = ask(call, run, *image, "-p", "Which?", *sound, *image)[0]
    second = ask(call, run, *sound, *image, *image, "-p", "Which?")[0]
    assert [item["modality"] for item in first["prompt_items"]] == ["image", "sound", "image"]
    assert [item["modality"] for item in second["prompt_items"]] == ["sound", "image", "image"]
    assert first["prompt_slots"] == second["prompt_slots"]


def test_the_answer_is_that_of_the_python_door(call, run, media, omni):
    found = ask(call, run, "--image", media / "test-0.png", "-p", "Which colour?")[0]
    said = omni.chat([media / "test-0.png", "Which colour?"], max_new=4)
    assert (found["text"], found["finish"], found["items"]) == (said.text, said.finish, [])


def test_drawing_depends_on_the_seed_and_nothing_else(call, run):
    def draw(seed):
        return ask(call, run, "-p", "Say.", "--temperature", "5", "--seed", seed)[0]["text"]

    assert draw(1) == draw(1)
    assert len({draw(seed) for seed in range(4)}) > 1


def test_wrong_flags_are_told_in_one_line(call, run, media):
    done = call("chat", run, "--photo", media / "test-0.png", "-p", "x")
    assert done.exit_code == 2
    assert "image, sound (audio), motion (series), points" in done.stderr and done.stderr.count("\n") == 1
    done = call("chat", run, "-p", "x", "--out", "smell")
    assert done.exit_code == 2 and "no output of this run" in done.stderr


def test_a_broken_medium_is_told_in_one_line(call, run, tmp_path):
    (tmp_path / "a.png").write_bytes(b"not a picture")
    done = call("chat", run, "--image", tmp_path / "a.png", "-p", "x")
    assert done.exit_code == 2 and done.stderr.startswith("error: [") and done.stderr.count("\n") == 1


def test_lines_of_a_pipe_are_turns_that_remember(call, run, media):
    lines = f"/image {media}/test-0.png\nWhich colour?\nand {media}/test-0.wav ?\n/reset\nWhich colour?\n/quit\nnever\n"
    answers = ask(call, run, stdin=lines)
    assert len(answers) == 3
    assert [item["modality"] for item in answers[0]["prompt_items"]] == ["image"]
    assert [item["modality"] for item in answers[1]["prompt_items"]] == ["image", "sound"]
    assert answers[1]["prompt_slots"] > answers[0]["prompt_slots"]
    assert answers[2]["prompt_items"] == [] and answers[2]["prompt_slots"] < answers[0]["prompt_slots"]


def test_items_of_the_command_line_wait_for_the_first_question(call, run, media):
    answers = ask(call, run, "--image", media / "test-0.png", stdin="Which colour?\nAgain?\n")
    assert [len(answer["prompt_items"]) for answer in answers] == [1, 1]


def test_an_error_in_a_conversation_does_not_end_it(call, run):
    answers = ask(call, run, stdin="/image nowhere.png\nWho?\n")
    assert "nowhere.png" in answers[0]["error"] and "text" in answers[1]


def test_a_conversation_is_saved_as_a_record_that_predict_reads(call, run, media, tmp_path):
    file = tmp_path / "talk.jsonl"
    ask(call, run, stdin=f"/image {media}/test-0.png Which colour?\n/save {file}\n")
    record = json.loads(file.read_text())
    assert [message["role"] for message in record["messages"]] == ["user", "assistant"]
    assert record["messages"][0]["content"][0]["type"] == "image"
    done = call("chat", run, "--max-new", "2", stdin=f"Hi.\n/save {file}\n")
    assert "is there already" in done.stderr and json.loads(file.read_text()) == record


def test_help_within_a_conversation_names_inputs_and_outputs(call, run):
    done = call("chat", run, stdin="/help\n")
    assert "/image PATH" in done.stdout and "outputs: text, drawing" in done.stdout


def test_pasted_paths_become_items_where_they_stand(omni, media, tmp_path):
    file = tmp_path / "two words.png"
    file.write_bytes((media / "test-0.png").read_bytes())
    escaped = str(file).replace(" ", "\\ ")
    item = {"type": "image", "path": str(file)}
    assert split_paths(f"what is {escaped} here", omni.config) == ["what is", item, "here"]
    assert split_paths(f"'{file}' \"{file}\"", omni.config) == [item, item]
    assert split_paths("it's 3/4 of a.b, isn't it?", omni.config) == ["it's 3/4 of a.b, isn't it?"]
    assert split_paths(f"/image {escaped} why", omni.config) == [item, "why"]


def test_a_path_that_several_inputs_read_is_asked_back(omni, media):
    with pytest.raises(ConfigError, match=r"/motion .* or /points"):
        split_paths(f"{media}/test-0-points.npy", omni.config)


def test_a_path_that_leads_nowhere_is_no_text(omni):
    with pytest.raises(ConfigError, match="there is no file"):
        split_paths("/no/where.png what is it", omni.config)


def drawn():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, 4:] = 255
    return Answer((Text("Here\x1b[2J."), Item("drawing", Image(pixels), role="out")), "stop")


def test_generated_items_are_saved_and_never_overwritten(omni, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    desk = Desk(omni, {"max_new": 4}, as_json=False, save_to=None)
    desk._show(drawn())
    desk._show(drawn())
    files = sorted((tmp_path / "answers").iterdir())
    assert len(files) == 2 and load_medium(files[0], "image").pixels.shape == (8, 8, 3)
    told = capsys.readouterr().out
    assert all(file.name in told for file in files)
    assert "\x1b" not in told


def test_json_holds_items_as_data_or_as_paths(omni, tmp_path):
    whole = Desk(omni, {}, as_json=True, save_to=None)._object(drawn(), {}, 0.1)
    assert load_medium(whole["items"][0]["data"], "image").pixels[0, 7, 0] == 255
    saved = Desk(omni, {}, as_json=True, save_to=tmp_path / "new")._object(drawn(), {}, 0.1)
    assert saved["items"][0]["modality"] == "drawing"
    assert load_medium(saved["items"][0]["path"], "image").pixels[0, 7, 0] == 255
